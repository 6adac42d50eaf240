"""Fronts: a thin layer on moocore in which every objective is maximised.

Shape legend: N points, M objectives, P points of a staircase.
"""

from collections.abc import Sequence
from typing import TypeAlias

import moocore
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]


def non_dominated(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates; equal points are in or out together.

    Args:
        points: (N, M).

    Returns:
        (N,) mask.

    Raises:
        ValueError: the points are not a finite (N, M) array.
    """
    points_NM = _checked(points)
    if not len(points_NM):
        return np.zeros(0, dtype=bool)
    mask: npt.NDArray[np.bool_] = moocore.is_nondominated(points_NM, maximise=True, keep_weakly=True)
    return mask


def ranks(points: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Rank 0 is the front, rank 1 the front without it, and so on; equal points share a rank.

    Args:
        points: (N, M).

    Returns:
        (N,) ranks.

    Raises:
        ValueError: the points are not a finite (N, M) array.
    """
    points_NM = _checked(points)
    if not len(points_NM):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(points_NM, maximise=True), dtype=np.int64)


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """The volume that the points dominate above the reference; points that are not above it add nothing.

    Args:
        points: (N, M).
        reference: (M,), a point that is worse than what counts.

    Raises:
        ValueError: the points are not a finite (N, M) array, or the reference has another M.
    """
    points_NM = _checked(points)
    reference_M = np.asarray(reference, dtype=np.float64)
    if reference_M.shape != points_NM.shape[1:]:
        raise ValueError(f"reference: must have one value an objective, {points_NM.shape[1:]}, got {reference_M.shape}")
    if not len(points_NM):
        return 0.0
    return float(moocore.hypervolume(points_NM, ref=reference_M, maximise=True))


def attainment(fronts: Sequence[npt.ArrayLike], levels: Sequence[float] = (2.5, 50, 97.5)) -> dict[float, Array]:
    """A front with confidence: what at least `level` per cent of the fronts attain (empirical attainment function).

    With bootstrap fronts, level 50 is the median front, 97.5 is the pessimistic edge of a 95 % band (nearly every
    resample reaches it) and 2.5 the optimistic one.

    Args:
        fronts: one (N, 2) array a resample, dominated points allowed.
        levels: per cent in (0, 100].

    Returns:
        level -> (P, 2) corners of the staircase, by rising first objective; P is 0 where no point is attained so often.

    Raises:
        ValueError: there are no fronts, one is empty or not a finite (N, 2) array, or a level is out of range.
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
    # moocore's attainment function minimises, and takes the percentiles in rising order.
    result = np.asarray(moocore.eaf(-np.concatenate(arrays), sets, percentiles=sorted(levels)))
    return {level: _staircase(-result[result[:, 2] == level, :2]) for level in levels}


def _staircase(corners_P2: Array) -> Array:
    return corners_P2[np.lexsort((-corners_P2[:, 1], corners_P2[:, 0]))]


def _checked(points: npt.ArrayLike) -> Array:
    points_NM = np.asarray(points, dtype=np.float64)
    if points_NM.ndim != 2 or points_NM.shape[1] == 0 or not np.isfinite(points_NM).all():
        raise ValueError(f"points: must be a finite (N, M) array, got shape {points_NM.shape}: leave failed ones out")
    return points_NM
