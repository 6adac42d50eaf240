"""What fronts are compared over: each arm's candidates as points of the same objectives, measured and resampled.

Shape legend: P points of an arm, R resamples, M objectives.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.fronts import read_front
from pipeline.report.data.points import describe, shared_points
from pipeline.report.data.resamples import RESAMPLES, bootstrap_weights
from pipeline.report.data.run import CandidateRow
from search.objectives import Objective, Role, role_metrics
from search.pareto import Array, non_dominated

TRADE_OFF = ("target", "control")


@dataclass(frozen=True)
class Cloud:
    """The points of one arm.

    Attributes:
        arm: whose they are.
        labels: P points of the searched space, in words.
        recipe_ids: P recipe ids; empty for an average, which is of a recipe for each expert.
        xy_PM: their objectives, all maximised.
        xy_PRM: the same in each resample of the images, which are the same images for every arm; NaN where an
            objective has no finite value.
    """

    arm: ArmResult
    labels: Sequence[str]
    recipe_ids: Sequence[str]
    xy_PM: Array
    xy_PRM: Array

    @property
    def mask_P(self) -> npt.NDArray[np.bool_]:
        """Which points are not dominated."""
        return non_dominated(self.xy_PM)


@dataclass(frozen=True)
class CloudSet:
    """Clouds over the same objectives.

    Attributes:
        group: the expert; "" for an average over experts and for a merge.
        objectives: M of them, as the spec writes them.
        clouds: one an arm that has scores.
        samples: number of validation images behind them, over all tasks.
    """

    group: str
    objectives: tuple[str, ...]
    clouds: Sequence[Cloud]
    samples: int


def averaged_scene(measure: Measure, bench: ComparableArms) -> CloudSet | None:
    """Normalised target and control accuracy of the edits, mean over experts; None without an arm of several points."""
    if not all(bench.over(role) for role in TRADE_OFF):
        return None
    clouds = []
    for arm in bench.arms:
        points = shared_points(arm)
        front = read_front(measure, bench, points, normalised=True)
        if front is not None:
            columns = [1, 0]  # a front has control first, as its figure does
            labels = [point.label for point in points]
            clouds.append(Cloud(arm, labels, [], front.xy_P2[:, columns], front.xy_PR2[:, :, columns]))
    return CloudSet("", TRADE_OFF, clouds, _samples(measure)) if any(len(c.labels) > 1 for c in clouds) else None


def own_scenes(measure: Measure, objectives: tuple[str, ...], arms: Sequence[ArmResult]) -> list[CloudSet]:
    """One scene a group, by the arms' own candidates."""
    groups = dict.fromkeys(group for arm in arms for group in arm.groups)
    scenes = []
    for group in groups:
        clouds = [c for arm in arms if (c := _cloud(measure, arm, group, objectives)) is not None]
        scenes += (
            [CloudSet(group, objectives, clouds, _samples(measure))] if any(len(c.labels) > 1 for c in clouds) else []
        )
    return scenes


def _samples(measure: Measure) -> int:
    return sum(int(task["n"]["val"]) for task in measure.run.provenance["tasks"] if task["role_hint"] != "ood")


def _cloud(measure: Measure, arm: ArmResult, group: str, objectives: tuple[str, ...]) -> Cloud | None:
    parsed = [Objective.parse(text) for text in objectives]
    found = []
    for candidate in (c for c in arm.candidates if c.group == group and not c.failure):
        values = _values(measure, candidate, parsed)
        found += [] if values is None else [(candidate, *values)]
    if not found:
        return None
    candidates, xy, resampled = zip(*found, strict=True)
    labels = [describe(c.point) for c in candidates]
    return Cloud(arm, labels, [c.recipe_id for c in candidates], np.stack(xy), np.stack(resampled))


def _values(measure: Measure, candidate: CandidateRow, objectives: Sequence[Objective]) -> tuple[Array, Array] | None:
    """Objectives (M,) and resampled (R, M); None where a task lacks outcomes or a reference, or one is not finite."""
    roles: dict[str, Role] = {
        task: role
        for (task, split), score in measure.run.scored(candidate).items()
        if split == "val" and (role := _role(score.role)) != "ood"
    }
    means, resampled = {}, {}
    for task in roles:
        outcomes = measure.run.outcomes(candidate, task, "val")
        if outcomes is None or not measure.references.get((task, roles[task] == "target", "val")):
            return None
        means[task] = float(outcomes.mean(dtype=np.float64))
        resampled[task] = outcomes.astype(np.float64) @ bootstrap_weights(task, len(outcomes))
    if "target" not in roles.values():
        return None
    draws = [{task: float(resampled[task][r]) for task in roles} for r in range(RESAMPLES)]
    rows = [_objectives(measure, values, roles, objectives) for values in (means, *draws)]
    return (np.array(rows[0]), np.array(rows[1:])) if all(map(math.isfinite, rows[0])) else None


def _objectives(
    measure: Measure, values: Mapping[str, float], roles: Mapping[str, Role], objectives: Sequence[Objective]
) -> list[float]:
    target, control = ({t: measure.references.get((t, own, "val"), 0.0) for t in roles} for own in (True, False))
    metrics = role_metrics(values, roles, target, control)
    found = []
    for objective in objectives:
        try:
            found.append(objective(metrics))
        except ValueError:  # not finite, such as a division by an accuracy that a resample makes 0
            found.append(math.nan)
    return found


def _role(name: str) -> Role:
    assert name in ("target", "control", "ood"), name
    return name  # type: ignore[return-value]
