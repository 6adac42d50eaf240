"""An arm's front on validation, and where it runs in 95% of the bootstrap resamples of the images.

Shape legend: P points of an arm, N samples of a task, R resamples, Q corners, 2 = (control, target).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.report.data.comparable import ComparableArms, GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import SearchedPoint
from pipeline.report.data.resamples import RESAMPLES, bootstrap_weights
from search.pareto import Array, attainment, non_dominated

ROLES = ("control", "target")


@dataclass(frozen=True)
class Front:
    """Positions of an arm's points and of its resampled fronts.

    Attributes:
        points: P points.
        xy_P2: their mean (control, target) values.
        xy_PR2: the same in each resample.
        mask_P: which of them are not dominated.
    """

    points: Sequence[SearchedPoint]
    xy_P2: Array
    xy_PR2: Array
    mask_P: npt.NDArray[np.bool_]

    @property
    def line(self) -> Array:
        """The front's own points, by rising control value."""
        front = self.xy_P2[self.mask_P]
        return front[np.argsort(front[:, 0])]

    def outline(self) -> Array:
        """Polygon (Q, 2) between the staircases that 97.5 % and 2.5 % of the resampled fronts attain."""
        surfaces = attainment(list(self.xy_PR2.transpose(1, 0, 2)), levels=(2.5, 97.5))
        outer, inner = surfaces[2.5], surfaces[97.5]
        # Attainment runs on along both axes for ever: the shade ends where the pessimistic front does.
        corner = (inner if len(inner) else outer).min(axis=0)
        return np.concatenate([_staircase(outer, corner), _staircase(inner, corner)[::-1]])


def read_front(
    measure: Measure, bench: ComparableArms, points: Sequence[SearchedPoint], normalised: bool = False
) -> Front | None:
    """The front of `points`, averaged over a bench's places; None where they were not scored everywhere.

    Args:
        measure: the run.
        bench: of edits.
        points: of one arm's space.
        normalised: divide by the references (paper, section 3), which count as known constants.
    """
    columns = [_averaged(measure, bench.over(role), points, role, normalised) for role in ROLES]
    if any(column is None for column in columns):
        return None
    xy_P2 = np.stack([c[0] for c in columns if c is not None], axis=1)
    xy_PR2 = np.stack([c[1] for c in columns if c is not None], axis=2)
    return Front(points, xy_P2, xy_PR2, non_dominated(xy_P2))


def _averaged(
    measure: Measure, places: Sequence[GroupTask], points: Sequence[SearchedPoint], role: str, normalised: bool
) -> tuple[Array, Array] | None:
    """Mean over the role's places for each point, as measured (P,) and resampled (P, R)."""
    scales = [measure.references.get((p.task, role == "target", "val")) if normalised else 1.0 for p in places]
    value_P, value_PR = np.zeros(len(points)), np.zeros((len(points), RESAMPLES))
    for place, scale in zip(places, scales, strict=True):
        outcomes_PN = _outcomes(measure, points, place)
        if outcomes_PN is None or not scale:
            return None
        value_P += outcomes_PN.mean(axis=1) / scale / len(places)
        value_PR += outcomes_PN @ bootstrap_weights(place.task, outcomes_PN.shape[1]) / scale / len(places)
    return (value_P, value_PR) if len(points) else None


def _outcomes(measure: Measure, points: Sequence[SearchedPoint], place: GroupTask) -> Array | None:
    candidates = [c for point in points if (c := point.pick(place.group)) is not None]
    found = [measure.run.outcomes(c, place.task, "val") for c in candidates]
    scored = [outcomes for outcomes in found if outcomes is not None]
    return np.stack(scored).astype(np.float64) if scored and len(scored) == len(points) else None


def _staircase(front: Array, corner: Array) -> Array:
    """The edge of what a front attains, from the left end of the shown region down to its bottom."""
    if not len(front):
        return corner[None]
    steps = [(corner[0], front[0, 1])]
    for (x, y), below in zip(front, [*front[1:, 1], corner[1]], strict=True):
        steps += [(x, y), (x, below)]
    return np.maximum(np.array(steps), corner)
