"""Paired significance tests over samples, Holm's correction, and the smallest change that a test can detect.

Shape legend: N samples, R permutations, V distinct absolute differences.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from search.intervals import Array
from search.row_tests import mcnemar_rows

#: Draws in one block: 32 MB.
_BLOCK = 4_000_000


def mcnemar(a_N: npt.ArrayLike, b_N: npt.ArrayLike) -> float:
    """Return the two-sided p-value of the exact McNemar test, for outcomes 0 or 1 of two models on the same samples.

    Only samples with different outcomes matter: without a change, each of them is a fair coin.

    Raises:
        ValueError: if an outcome is neither 0 nor 1, or a and b differ in length.

    Example:
        >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0])
        0.03125
    """
    difference_N = differences(a_N, b_N)
    if not is_binary(a_N) or not is_binary(b_N):
        raise ValueError("mcnemar: outcomes must be 0 or 1; use sign_flip for others")
    won, lost = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    return float(mcnemar_rows(won, lost))


def sign_flip(a_N: npt.ArrayLike, b_N: npt.ArrayLike, permutations: int = 9_999, seed: int = 0) -> float:
    """Return the two-sided p-value of the sign-flip permutation test of mean(a - b), for outcomes of any kind.

    Without a change, the difference of a sample is as likely as its negative. Of equal absolute differences only the
    number that keeps its sign matters, and it is binomial: R * V draws instead of R * N.

    Args:
        a_N: (N,) outcomes of one model.
        b_N: (N,) outcomes of the other model, on the same samples.
        permutations: R; the smallest p-value is 1 / (R + 1).
        seed: seed of the random generator.

    Raises:
        ValueError: if a and b differ in length, or a value is not finite.

    Example:
        >>> round(sign_flip([2.0, 1.5, 3.0], [1.0, 1.0, 1.0]), 2)
        0.25
    """
    difference_N = differences(a_N, b_N)
    values_V, counts_V = np.unique(np.abs(difference_N[difference_N != 0]), return_counts=True)
    if not len(values_V):
        return 1.0
    # Sums of the same numbers in another order may differ by floating-point errors, which must not decide.
    reached = abs(float(difference_N.sum())) * (1 - 1e-9)
    rng, block, as_large = np.random.default_rng(seed), max(1, _BLOCK // len(values_V)), 0
    for first in range(0, permutations, block):
        kept_RV = _kept(rng, counts_V, min(block, permutations - first))
        as_large += int((np.abs((2 * kept_RV - counts_V) @ values_V) >= reached).sum())
    return (as_large + 1) / (permutations + 1)


def _kept(rng: np.random.Generator, counts_V: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """Return (rows, V): how many of each absolute difference keep their sign, drawn once for each row."""
    shape = (rows, len(counts_V))
    # Differences of rewards are rarely equal; bits are then drawn ten times as fast as binomials.
    return rng.integers(0, 2, shape, dtype=np.int8) if counts_V.max() == 1 else rng.binomial(counts_V, 0.5, shape)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p-values of Holm's step-down procedure, in the order given.

    Rejecting at or below a level bounds the chance of any false rejection by it, also for dependent tests.

    Example:
        >>> holm([0.25, 0.5, 0.125])
        [0.5, 0.5, 0.375]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def detectable(a_N: npt.ArrayLike, b_N: npt.ArrayLike, level: float, power: float = 0.8) -> float:
    """Return the smallest change of the mean that a two-sided test at `level` finds with chance `power`.

    It is the normal approximation with the spread of these differences, but at least the smallest change that the exact
    test can find: the least k with 2 * 0.5^k <= level samples, all changed in one direction.

    Raises:
        ValueError: if a and b differ in length, or a value is not finite.
    """
    difference_N = differences(a_N, b_N)
    largest = float(np.abs(difference_N).max()) or 1.0
    least = largest * math.ceil(1 + math.log2(1 / level)) / len(difference_N)
    wide = float(norm.ppf(1 - level / 2) + norm.ppf(power)) * float(difference_N.std()) / math.sqrt(len(difference_N))
    return max(least, wide)


def unseen(a_N: npt.ArrayLike, b_N: npt.ArrayLike, level: float) -> float:
    """Return how far the mean may move by samples of a kind that is not among these N.

    A bootstrap of samples that do not differ gives an interval of width 0, but no two models agree on all possible
    samples. N samples miss a share s of them with chance (1 - s)^N, which is level / 2 at the share returned (0.9% for
    400 samples), times the largest difference seen, or 1.

    Raises:
        ValueError: if a and b differ in length, or a value is not finite.
    """
    difference_N = differences(a_N, b_N)
    return (float(np.abs(difference_N).max()) or 1.0) * -math.expm1(math.log(level / 2) / len(difference_N))


def is_binary(values_N: npt.ArrayLike) -> bool:
    """Whether every outcome is 0 or 1."""
    return bool(np.isin(np.asarray(values_N), (0, 1)).all())


def differences(a_N: npt.ArrayLike, b_N: npt.ArrayLike) -> Array:
    """Return a - b for each sample.

    Raises:
        ValueError: if a and b differ in length, or a value is not finite.
    """
    a, b = np.asarray(a_N, dtype=np.float64), np.asarray(b_N, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"paired test: both must hold the same samples, got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired test: outcomes must be finite")
    difference: Array = a - b
    return difference
