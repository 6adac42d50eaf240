"""An arm's front on validation, and where it runs in 95% of the bootstrap resamples of the images.

Shape legend: P points of an arm, N samples of a task, R resamples, 2 = (control, target).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.report.measure import Measure, Place
from pipeline.report.points import Point
from search.pareto import Array, attainment, non_dominated

RESAMPLES = 200
ROLES = ("control", "target")


@dataclass(frozen=True)
class Front:
    """Positions of an arm's points and of its resampled fronts.

    Attributes:
        points: P points.
        xy_P2: their mean (control, target) values.
        mask_P: which of them are not dominated.
        outline_Q2: polygon between the staircases that 97.5 % and 2.5 % of the resampled fronts attain; None where the
            arm has no more than one point.
    """

    points: Sequence[Point]
    xy_P2: Array
    mask_P: npt.NDArray[np.bool_]
    outline_Q2: Array | None

    @property
    def line(self) -> Array:
        """The front's own points, by rising control value."""
        front = self.xy_P2[self.mask_P]
        return front[np.argsort(front[:, 0])]


def read_front(measure: Measure, points: Sequence[Point]) -> Front | None:
    """The front of `points`, averaged over the edits' places; None where they were not scored everywhere."""
    columns = [_resampled(measure, points, measure.places["edit", role]) for role in ROLES]
    if any(column is None for column in columns):
        return None
    xy_P2 = np.stack([c[0] for c in columns if c is not None], axis=1)
    xy_PR2 = np.stack([c[1] for c in columns if c is not None], axis=2)
    return Front(points, xy_P2, non_dominated(xy_P2), _outline(xy_PR2) if len(points) > 1 else None)


def _resampled(measure: Measure, points: Sequence[Point], places: Sequence[Place]) -> tuple[Array, Array] | None:
    """Mean over places for each point, as measured (P,) and resampled (P, R)."""
    if not points:
        return None
    value_P, value_PR = np.zeros(len(points)), np.zeros((len(points), RESAMPLES))
    for place in places:
        candidates = [c for point in points if (c := point.pick(place.group)) is not None]
        found = [measure.run.outcomes(c, place.task, "val") for c in candidates]
        scored = [outcomes for outcomes in found if outcomes is not None]
        if len(scored) < len(points):
            return None
        outcomes_PN = np.stack(scored).astype(np.float64)
        value_P += outcomes_PN.mean(axis=1) / len(places)
        value_PR += outcomes_PN @ _weights(place.task, outcomes_PN.shape[1]) / len(places)
    return value_P, value_PR


def _weights(task: str, samples: int) -> Array:
    """Bootstrap weights (N, R), each column summing to 1: one draw of images for every arm, expert and point."""
    generator = np.random.default_rng(zlib.crc32(task.encode()))
    counts_RN = generator.multinomial(samples, np.full(samples, 1 / samples), size=RESAMPLES)
    return np.asarray(counts_RN.T / samples, dtype=np.float64)


def _outline(xy_PR2: Array) -> Array:
    surfaces = attainment(list(xy_PR2.transpose(1, 0, 2)), levels=(2.5, 97.5))
    outer, inner = surfaces[2.5], surfaces[97.5]
    # Attainment runs on along both axes for ever: the shade ends where the pessimistic front does.
    corner = (inner if len(inner) else outer).min(axis=0)
    return np.concatenate([_staircase(outer, corner), _staircase(inner, corner)[::-1]])


def _staircase(front: Array, corner: Array) -> Array:
    """The edge of what a front attains, from the left end of the shown region down to its bottom."""
    if not len(front):
        return corner[None]
    steps = [(corner[0], front[0, 1])]
    for (x, y), below in zip(front, [*front[1:, 1], corner[1]], strict=True):
        steps += [(x, y), (x, below)]
    return np.maximum(np.array(steps), corner)
