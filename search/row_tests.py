"""p-values of paired tests for many resamples at once, from the sums of each.

Shape legend: R resamples (any shape), N samples of each.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr

from search.intervals import Array


def mcnemar_rows(won_R: npt.ArrayLike, lost_R: npt.ArrayLike) -> Array:
    """Return the p-values of `mcnemar` from the numbers of samples that only one of both models has right."""
    won, lost = np.asarray(won_R), np.asarray(lost_R)
    # Both tails of the binomial are equal; they overlap if won == lost.
    p_R: Array = np.minimum(1.0, 2 * bdtr(np.minimum(won, lost), won + lost, 0.5))
    return p_R


def sign_flip_rows(difference_RN: Array) -> Array:
    """Return the p-values of `sign_flip`, without its permutations, for differences (R, N).

    Without a change, the sum of differences has mean 0, variance sum(d^2), no skewness and an excess kurtosis of
    -2 sum(d^4) / sum(d^2)^2: its distribution to second order (Edgeworth's series). The sum moves in steps of twice
    the smallest difference, of which half a step is the correction for continuity. No p-value is below that of the most
    extreme signs, 2 * 0.5^n for n differences that are not 0.
    """
    squares_RN = difference_RN * difference_RN
    total_R, variance_R = np.abs(difference_RN.sum(axis=1)), squares_RN.sum(axis=1)
    fourth_R = np.einsum("rn,rn->r", squares_RN, squares_RN)
    count_R = np.count_nonzero(difference_RN, axis=1)
    half_R = np.where(difference_RN != 0, np.abs(difference_RN), np.inf).min(axis=1)
    safe_R = np.where(count_R, variance_R, 1.0)
    z_R = np.maximum(0.0, total_R - np.where(count_R, half_R, 0.0)) / np.sqrt(safe_R)
    density_R = np.exp(-z_R * z_R / 2) / np.sqrt(2 * np.pi)
    tail_R = ndtr(-z_R) - density_R * fourth_R / safe_R**2 / 12 * (z_R**3 - 3 * z_R)
    p_R: Array = np.clip(2 * tail_R, 2 * 0.5**count_R, 1.0)
    return p_R
