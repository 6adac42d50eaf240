"""The points of each arm in the space of the objectives, as measured and in every bootstrap resample.

Shape legend: P points of an arm, M objectives, S = 1 + R with the measurement first, Q corners of an outline.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms, GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import SearchedPoint, describe, shared_points
from pipeline.report.data.resamples import ACCURACY_RESAMPLES
from pipeline.report.data.run import CandidateRow
from search.objectives import Objective, Role, role_metrics
from search.pareto import Array, attainment, non_dominated

TRADE_OFF = ("target", "control")
#: Resampled fronts behind a shade: more do not move its edge visibly, and would enlarge the page.
_DRAWN = 200


@dataclass(frozen=True)
class Cloud:
    """The points of one arm.

    Attributes:
        arm: the arm.
        labels: P points of the searched space, in words.
        candidates: P candidates; empty if a point is an average over experts, each with a candidate of its own.
        xy_SPM: their objectives, all maximised; every arm has the same resamples. NaN if an objective is not finite.
        joined: whether the points follow one dimension, so that a figure may join them.
    """

    arm: ArmResult
    labels: Sequence[str]
    candidates: Sequence[CandidateRow]
    xy_SPM: Array
    joined: bool = False

    @property
    def xy_PM(self) -> Array:
        """The objectives as measured."""
        measured: Array = self.xy_SPM[0]
        return measured

    @property
    def mask_P(self) -> npt.NDArray[np.bool_]:
        """Which points are not dominated."""
        return non_dominated(self.xy_PM)

    def outline(self, x: int, y: int) -> Array:
        """Return the polygon (Q, 2) where the front of objectives x and y lies in 95% of the resamples."""
        surfaces = attainment(list(self.xy_SPM[1 : 1 + _DRAWN, :, [x, y]]), levels=(2.5, 97.5))
        outer, inner = surfaces[2.5], surfaces[97.5]
        # What is attained has no end along either axis: the shade ends at the pessimistic front.
        corner = (inner if len(inner) else outer).min(axis=0)
        return np.concatenate([_staircase(outer, corner), _staircase(inner, corner)[::-1]])


@dataclass(frozen=True)
class CloudSet:
    """Clouds over the same objectives.

    Attributes:
        group: the expert; "" for an average over experts and for a merge.
        objectives: M of them, as the spec writes them.
        clouds: one for each arm that has scores.
        samples: number of validation images, or prompts, over all tasks.
    """

    group: str
    objectives: tuple[str, ...]
    clouds: Sequence[Cloud]
    samples: int


def averaged_cloud(measure: Measure, bench: ComparableArms, arm: ArmResult, normalised: bool = False) -> Cloud | None:
    """Return target and control accuracy of an arm's points on validation, averaged over a bench of edits.

    Args:
        measure: the run.
        bench: the experts and tasks to average over.
        arm: any arm.
        normalised: divide by the references (paper, section 3), which count as known constants.

    Returns:
        The points that were scored for every expert; None if there are none, or one lacks a score.
    """
    points = shared_points(arm)
    over = bench.normalised_over if normalised else bench.over
    columns = [_averaged(measure, over(role), points, role, normalised) for role in TRADE_OFF] if points else []
    if not points or any(column is None for column in columns):
        return None
    xy_SP2 = np.stack([column for column in columns if column is not None], axis=2)
    return Cloud(arm, [point.label for point in points], [], xy_SP2)


def averaged_clouds(measure: Measure, bench: ComparableArms) -> CloudSet | None:
    """Return normalised target and control accuracy of edits, mean over experts; None if no arm has several points."""
    if not all(bench.normalised_over(role) for role in TRADE_OFF):
        return None
    clouds = [c for arm in bench.arms if (c := averaged_cloud(measure, bench, arm, normalised=True)) is not None]
    return CloudSet("", TRADE_OFF, clouds, _samples(measure)) if any(len(c.labels) > 1 for c in clouds) else None


def group_clouds(measure: Measure, objectives: tuple[str, ...], arms: Sequence[ArmResult]) -> list[CloudSet]:
    """Return the candidates of each group, for the groups in which an arm has several."""
    groups = dict.fromkeys(group for arm in arms for group in arm.groups)
    sets = []
    for group in groups:
        clouds = [c for arm in arms if (c := _cloud(measure, arm, group, objectives)) is not None]
        if any(len(c.labels) > 1 for c in clouds):
            sets.append(CloudSet(group, objectives, clouds, _samples(measure)))
    return sets


def _samples(measure: Measure) -> int:
    tasks = [task for task in measure.run.provenance["tasks"] if task["role_hint"] != "ood"]
    return sum(int(task["n"]["val"]) for task in tasks) // measure.run.draws


def _averaged(
    measure: Measure, places: Sequence[GroupTask], points: Sequence[SearchedPoint], role: str, normalised: bool
) -> Array | None:
    """Mean over the role's places for each point, (S, P)."""
    value_SP = np.zeros((1 + ACCURACY_RESAMPLES, len(points)))
    for place in places:
        scale = measure.references.get((place.task, role == "target", "val")) if normalised else 1.0
        found = [measure.resampled(point.pick(place.group), place.task) for point in points]
        means = [mean_S for mean_S in found if mean_S is not None]
        if not scale or len(means) < len(points):
            return None
        mean_SP = np.stack(means, axis=1)
        lower = normalised and measure.lower_is_better(place.task)
        value_SP += (scale / mean_SP if lower else mean_SP / scale) / len(places)
    return value_SP


def _cloud(measure: Measure, arm: ArmResult, group: str, objectives: tuple[str, ...]) -> Cloud | None:
    parsed = [Objective.parse(text) for text in objectives]
    scored = [c for c in arm.candidates if c.group == group and not c.failure]
    found = [(c, xy_SM) for c in scored if (xy_SM := _values(measure, c, parsed)) is not None]
    if not found:
        return None
    labels = [describe(c.point) for c, _ in found]
    return Cloud(arm, labels, [c for c, _ in found], np.stack([xy_SM for _, xy_SM in found], axis=1))


def _values(measure: Measure, candidate: CandidateRow, objectives: Sequence[Objective]) -> Array | None:
    """Objectives (S, M); None if a task lacks outcomes or a reference, or an objective as measured is not finite."""
    roles: dict[str, Role] = {
        task: role
        for (task, split), score in measure.run.scored(candidate).items()
        if split == "val" and (role := _role(score.role)) != "ood"
    }
    means = {}
    for task in roles:
        mean_S = measure.resampled(candidate, task)
        if mean_S is None or not measure.references.get((task, roles[task] == "target", "val")):
            return None
        means[task] = mean_S.tolist()
    if "target" not in roles.values():
        return None
    target, control = ({t: measure.references.get((t, own, "val"), 0.0) for t in roles} for own in (True, False))
    rows, lower = [], {task for task in roles if measure.lower_is_better(task)}
    for s in range(1 + ACCURACY_RESAMPLES):
        metrics = role_metrics({task: means[task][s] for task in roles}, roles, target, control, lower)
        rows.append([_value(objective, metrics) for objective in objectives])
    return np.array(rows) if all(map(math.isfinite, rows[0])) else None


def _value(objective: Objective, metrics: Mapping[str, float]) -> float:
    try:
        return objective(metrics)
    except ValueError:  # not finite: it divides by an accuracy that is 0 in a resample
        return math.nan


def _role(name: str) -> Role:
    assert name in ("target", "control", "ood"), name
    return name  # type: ignore[return-value]


def _staircase(front: Array, corner: Array) -> Array:
    """The edge of what a front attains, from the left end of the shown region down to its bottom."""
    if not len(front):
        return corner[None]
    steps = [(corner[0], front[0, 1])]
    for (x, y), below in zip(front, [*front[1:, 1], corner[1]], strict=True):
        steps += [(x, y), (x, below)]
    return np.maximum(np.array(steps), corner)
