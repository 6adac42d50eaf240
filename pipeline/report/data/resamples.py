"""Bootstrap resamples that all arms share, so that every comparison is paired.

Shape legend: A rows (a candidate's outcomes on one task), N samples, D draws of each (completions of a prompt),
O = N * D outcomes with the draws of a sample side by side, R resamples, S = 1 + R with the measurement first.
"""

import numpy as np

from search.intervals import Array, Interval, percentile_interval

#: Resamples behind fronts of rewards, and the fewer behind fronts of accuracies (means take 2,000 by a shortcut, see
#: `search.intervals`). A front has no shortcut: each resample draws every sample, evaluates the objectives of every
#: candidate and computes a hypervolume for every arm. A reward has few prompts: 1,000 resamples of 4 soups of 11
#: points take 0.2 s of one core. Accuracies have thousands of images and hundreds of candidates: 200 and 1,000
#: resamples take 0.1 and 0.4 s for each task of 5,000 images, and 0.2 and 0.9 s for the two objectives of 73
#: candidates.
REWARD_RESAMPLES = 1000
ACCURACY_RESAMPLES = 200
#: Most weights of outcomes that are in memory at once.
_BLOCK = 2**22


def resampled_means(outcomes_AO: Array, resamples: int, seed: int = 0, draws: int = 1) -> Array:
    """Return the means of every row over the same resamples, of shape (S, A).

    With several draws, a two-stage bootstrap: N samples with replacement, then D draws with replacement for each drawn
    sample. Completions of one prompt are correlated, so they count for less than as many prompts; the second stage adds
    the variance of sampling the same prompts again, and errs on the wide side (Davison and Hinkley 1997, section 3.8).

    Raises:
        ValueError: if the number of outcomes is not a multiple of `draws`.
    """
    count = outcomes_AO.shape[1]
    if count == 0 or count % draws:
        raise ValueError(f"samples: must be {draws} outcomes for each prompt, got {count} in all")
    rng = np.random.default_rng(seed)
    means = []
    block = max(1, _BLOCK // count)
    for first in range(0, resamples, block):
        weights_RO = _weights(rng, min(block, resamples - first), count // draws, draws)
        means.append(weights_RO @ outcomes_AO.T / count)
    # Rounded relative to each row's size: equal rows must stay equal wherever a matrix product puts them.
    size_A = np.maximum(np.abs(outcomes_AO).max(axis=1), 1e-300)
    means_RA = np.round(np.concatenate(means) / size_A, 12) * size_A
    return np.concatenate([outcomes_AO.mean(axis=1)[None], means_RA])


def resampled_interval(values_S: Array, n: int) -> Interval:
    """Return the first value with the 95% interval of the others; the interval of b - a mirrors that of a - b."""
    return percentile_interval(values_S[0], values_S[1:], n)


def _weights(rng: np.random.Generator, resamples: int, samples: int, draws: int) -> Array:
    """How often each outcome is drawn, (resamples, O); a sample drawn c times draws c * D of its D outcomes."""
    counts_RN = rng.multinomial(samples, np.full(samples, 1 / samples), size=resamples)
    if draws > 1:
        counts_RN = rng.multinomial(counts_RN * draws, np.full(draws, 1 / draws)).reshape(resamples, -1)
    return counts_RN.astype(np.float64)
