"""Pareto fronts by moocore, with every objective maximised.

Shape legend: N points, M objectives, P points of a staircase.
"""

from collections.abc import Sequence
from typing import TypeAlias

import moocore
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]


def non_dominated(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return a mask of the Pareto front: the points that no other point dominates; equal points share their value.

    Args:
        points: (N, M).

    Returns:
        (N,) mask.

    Raises:
        ValueError: if the points are not a finite (N, M) array.

    Example:
        >>> non_dominated([[0.9, 0.1], [0.5, 0.5], [0.4, 0.4]]).tolist()
        [True, True, False]
    """
    points_NM = _checked(points)
    if not len(points_NM):
        return np.zeros(0, dtype=bool)
    mask: npt.NDArray[np.bool_] = moocore.is_nondominated(points_NM, maximise=True, keep_weakly=True)
    return mask


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the volume that the points dominate above the reference; points that are not above it add nothing.

    Args:
        points: (N, M).
        reference: (M,), the lowest values that count.

    Raises:
        ValueError: if the points are not a finite (N, M) array, or the reference has another M.

    Example:
        >>> hypervolume([[1.0, 2.0], [2.0, 1.0]], [0.0, 0.0])
        3.0
    """
    points_NM = _checked(points)
    reference_M = np.asarray(reference, dtype=np.float64)
    if reference_M.shape != points_NM.shape[1:]:
        raise ValueError(
            f"reference: must have the shape {points_NM.shape[1:]}, one value an objective, got {reference_M.shape}"
        )
    if not len(points_NM):
        return 0.0
    return float(moocore.hypervolume(points_NM, ref=reference_M, maximise=True))


def attainment(fronts: Sequence[npt.ArrayLike], levels: Sequence[float] = (2.5, 50, 97.5)) -> dict[float, Array]:
    """Return the fronts that at least `level` per cent of the given fronts attain (empirical attainment function).

    With bootstrap fronts, level 50 is the median front, 97.5 the pessimistic edge of a 95 % band (nearly every resample
    reaches it), and 2.5 the optimistic edge.

    Args:
        fronts: one (N, 2) array for each resample; dominated points are allowed.
        levels: per cent in (0, 100].

    Returns:
        level -> (P, 2) corners of the staircase, by rising first objective; P is 0 if no point is attained so often.

    Raises:
        ValueError: if there are no fronts, one is empty or not a finite (N, 2) array, or a level is out of range.

    Example:
        >>> attainment([[[1.0, 2.0]], [[2.0, 1.0]]], levels=(50, 100))
        {50: array([[1., 2.],
               [2., 1.]]), 100: array([[1., 1.]])}
    """
    if not fronts:
        raise ValueError("attainment: needs at least one front, got none")
    arrays = [_checked(front) for front in fronts]
    for number, array in enumerate(arrays):
        if array.shape[0] == 0 or array.shape[1] != 2:
            raise ValueError(f"attainment: front {number} must be (N, 2) with N > 0, got {array.shape}")
    for level in levels:
        if not 0 < level <= 100:
            raise ValueError(f"attainment: levels must be in (0, 100], got {level}")
    sets = np.repeat(np.arange(len(arrays)), [len(a) for a in arrays])
    # moocore.eaf minimises and needs rising percentiles.
    result = np.asarray(moocore.eaf(-np.concatenate(arrays), sets, percentiles=sorted(levels)))
    return {level: _staircase(-result[result[:, 2] == level, :2]) for level in levels}


def _staircase(corners_P2: Array) -> Array:
    return corners_P2[np.lexsort((-corners_P2[:, 1], corners_P2[:, 0]))]


def _checked(points: npt.ArrayLike) -> Array:
    points_NM = np.asarray(points, dtype=np.float64)
    if points_NM.ndim != 2 or points_NM.shape[1] == 0 or not np.isfinite(points_NM).all():
        raise ValueError(f"points: must be a finite (N, M) array, got shape {points_NM.shape}: leave failed points out")
    return points_NM
