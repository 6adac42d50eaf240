"""Whether a change is more than chance: paired tests over the samples, Holm's correction, and what could be found.

Shape legend: N samples, R permutations, V distinct absolute differences.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr
from scipy.stats import norm

from search.intervals import Array

#: Draws at a time: 32 MB of them.
_BLOCK = 4_000_000


def mcnemar(a_N: npt.ArrayLike, b_N: npt.ArrayLike) -> float:
    """Exact McNemar test of two models on the same samples, each outcome 0 or 1: the two-sided p-value.

    Only samples on which they differ tell anything: under no change each of them is a fair coin.

    Raises:
        ValueError: an outcome is neither 0 nor 1, or the two differ in length.
    """
    difference_N = differences(a_N, b_N)
    if not is_binary(a_N) or not is_binary(b_N):
        raise ValueError("mcnemar: outcomes must be 0 or 1; for others there is sign_flip")
    won, lost = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    # Both tails of the binomial are alike; where it is split evenly they overlap.
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def sign_flip(a_N: npt.ArrayLike, b_N: npt.ArrayLike, permutations: int = 9_999, seed: int = 0) -> float:
    """Sign-flip permutation test of mean(a - b) on the same samples, for outcomes of any kind: the two-sided p-value.

    Under no change the difference of a sample is as likely as its negative. Of equal absolute differences only how many
    keep their sign matters, and that is binomial: R * V draws rather than R * N.

    Args:
        a_N: outcomes of one model.
        b_N: outcomes of the other.
        permutations: R; the smallest p-value is 1 / (R + 1).
        seed: of the random generator.

    Raises:
        ValueError: a and b differ in length, or a value is not finite.
    """
    difference_N = differences(a_N, b_N)
    values_V, counts_V = np.unique(np.abs(difference_N[difference_N != 0]), return_counts=True)
    if not len(values_V):
        return 1.0
    # What floating point adds to sums of the same numbers in another order must not decide.
    reached = abs(float(difference_N.sum())) * (1 - 1e-9)
    rng, block, as_large = np.random.default_rng(seed), max(1, _BLOCK // len(values_V)), 0
    for first in range(0, permutations, block):
        kept_RV = _kept(rng, counts_V, min(block, permutations - first))
        as_large += int((np.abs((2 * kept_RV - counts_V) @ values_V) >= reached).sum())
    return (as_large + 1) / (permutations + 1)


def _kept(rng: np.random.Generator, counts_V: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """How many of each absolute difference keep their sign, once a row; (rows, V)."""
    shape = (rows, len(counts_V))
    # Rewards hardly ever differ by the same: bits are then drawn ten times as fast as binomials.
    return rng.integers(0, 2, shape, dtype=np.int8) if counts_V.max() == 1 else rng.binomial(counts_V, 0.5, shape)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down procedure, in the order given.

    Rejecting those at or below a level keeps the chance of any false rejection there, whatever depends on what.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def detectable(a_N: npt.ArrayLike, b_N: npt.ArrayLike, level: float, power: float = 0.8) -> float:
    """The smallest change of the mean that a two-sided test at `level` finds with chance `power`.

    By the normal approximation, from how much the differences of these two vary; and no less than the exact test can
    ever call significant: so few samples, all changed to one side, that 2 * 0.5^k stays at or below the level.

    Raises:
        ValueError: a and b differ in length, or a value is not finite.
    """
    difference_N = differences(a_N, b_N)
    largest = float(np.abs(difference_N).max()) or 1.0
    least = largest * math.ceil(1 + math.log2(1 / level)) / len(difference_N)
    wide = float(norm.ppf(1 - level / 2) + norm.ppf(power)) * float(difference_N.std()) / math.sqrt(len(difference_N))
    return max(least, wide)


def unseen(a_N: npt.ArrayLike, b_N: npt.ArrayLike, level: float) -> float:
    """How far the mean may move by samples of a kind that none of these N is: no two models agree on all there are.

    A share s of such samples is missed by all N with chance (1 - s)^N, which is level / 2 at the share returned (of 400
    samples 0.9%), times the largest difference seen, or 1. A bootstrap of samples that do not differ cannot tell.

    Raises:
        ValueError: a and b differ in length, or a value is not finite.
    """
    difference_N = differences(a_N, b_N)
    return (float(np.abs(difference_N).max()) or 1.0) * -math.expm1(math.log(level / 2) / len(difference_N))


def is_binary(values_N: npt.ArrayLike) -> bool:
    """Whether every outcome is 0 or 1."""
    return bool(np.isin(np.asarray(values_N), (0, 1)).all())


def differences(a_N: npt.ArrayLike, b_N: npt.ArrayLike) -> Array:
    """Sample by sample, a - b.

    Raises:
        ValueError: a and b differ in length, or a value is not finite.
    """
    a, b = np.asarray(a_N, dtype=np.float64), np.asarray(b_N, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"paired test: both must hold the same samples, got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired test: outcomes must be finite")
    found: Array = a - b
    return found
