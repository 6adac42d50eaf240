"""Resampled means of rewards: prompts, and within each prompt its completions, the same for every arm and reward.

Shape legend: A rows (a candidate's outcomes of one reward), N prompts, D draws of each, O = N * D outcomes,
prompt-major, R resamples, S = 1 + R with the measurement first.
"""

import numpy as np

from search.intervals import Array, Interval

RESAMPLES = 1000
#: Weights of so many outcomes are in memory at once.
_BLOCK = 2**22


def resampled_means(outcomes_AO: Array, draws: int, resamples: int = RESAMPLES) -> Array:
    """Means of shape (S, A), all rows over the same resamples.

    Two-stage bootstrap: N prompts with replacement, then D completions with replacement for each drawn prompt.
    Completions of one prompt go together, so that they count for less than as many prompts; the second stage adds what
    another sampling of the same prompts would change, and errs on the wide side (Davison and Hinkley 1997, section
    3.8).

    Raises:
        ValueError: the outcomes are not D for each prompt.
    """
    count = outcomes_AO.shape[1]
    if count == 0 or count % draws:
        raise ValueError(f"samples: must hold {draws} outcomes for each prompt, got {count} in all")
    rng = np.random.default_rng(0)
    means = [outcomes_AO.mean(axis=1)[None]]
    block = max(1, _BLOCK // count)
    for first in range(0, resamples, block):
        weights_RO = _weights(rng, min(block, resamples - first), count // draws, draws)
        means.append(weights_RO @ outcomes_AO.T / count)
    # Rounded against each row's own size: equal rows must be equal, wherever a matrix product has put them.
    size_A = np.maximum(np.abs(outcomes_AO).max(axis=1), 1e-300)
    found: Array = np.round(np.concatenate(means) / size_A, 12) * size_A
    return found


def interval(values_S: Array, prompts: int) -> Interval:
    """Of the first value, by the percentiles of the others: of a - b and of b - a the same, turned round."""
    low, high = np.quantile(values_S[1:], (0.025, 0.975)).round(12)
    return Interval(float(values_S[0]), float(low), float(high), prompts)


def _weights(rng: np.random.Generator, resamples: int, prompts: int, draws: int) -> Array:
    """How often each outcome is drawn, (resamples, O); a prompt drawn c times draws c * D of its D completions."""
    counts_RN = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    if draws > 1:
        counts_RN = rng.multinomial(counts_RN * draws, np.full(draws, 1 / draws)).reshape(resamples, -1)
    return counts_RN.astype(np.float64)
