"""Tables: how much each arm's front on validation dominates, and by how much LiNeS's front differs from its rivals'.

Shape legend: P points of an arm, R resamples, S = 1 + R with the measurement first, M objectives.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.report.data.arms import ArmResult, opponents
from pipeline.report.data.clouds import TRADE_OFF, Cloud, CloudSet, averaged_scene, own_scenes
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import shared_points
from pipeline.report.data.resamples import RESAMPLES
from pipeline.report.tables.table import NONE, Table, TableCell, decimal
from search.intervals import Interval
from search.pareto import Array, hypervolume

EXPLAINED = (
    "Hypervolume: what the front dominates above those worst values. 95% intervals and paired differences by "
    f"{RESAMPLES} resamples of the images, the same for all arms, with the worst values of each resample. Read them "
    "beside the number of points tried: a front of more points, or one that holds another arm's, dominates more by "
    "construction, and these are the images that the search saw. Against a single point there is no verdict."
)


def front_tables(measure: Measure) -> list[Table]:
    """Of edits, averaged and, where an expert was searched at points of its own, by expert; of several objectives."""
    tables = [table for bench in measure.benches for table in _bench_tables(measure, bench)]
    return [replace(tables[0], note=f"{tables[0].note} {EXPLAINED}"), *tables[1:]] if tables else []


def _bench_tables(measure: Measure, bench: ComparableArms) -> list[Table]:
    tables = []
    searched = _searched(measure, bench)
    # With one expert, an average is that expert's own front, which is told with its objectives.
    alone = len(bench.experts) == 1
    averaged = averaged_scene(measure, bench) if bench.kind == "edit" else None
    if averaged is not None and not (alone and TRADE_OFF in searched):
        title = bench.titled("Fronts on validation" + ", mean over experts" * (not alone))
        tables += _tables(measure, [averaged], title)
    for objectives, arms in searched.items():
        scenes = own_scenes(measure, objectives, arms)
        tables += _tables(measure, scenes, bench.titled(_title(objectives, scenes)))
        if scenes and list(objectives) in measure.run.provenance["objectives"].values():
            tables.append(_members(scenes))
    return tables


def _searched(measure: Measure, bench: ComparableArms) -> dict[tuple[str, ...], list[ArmResult]]:
    """Objectives -> the arms to compare group by group: those that searched for these, and the plain ones."""
    arms = [a for a in bench.arms if a.kind == bench.kind]
    wanted = {a.name: tuple(measure.run.provenance["objectives"].get(a.name, ())) for a in arms}
    found: dict[tuple[str, ...], list[ArmResult]] = {}
    if bench.kind == "edit" and bench.over("control") and any(not shared_points(a) for a in arms):
        found[TRADE_OFF] = arms
    for objectives in dict.fromkeys(wanted.values()):
        if len(objectives) > 1:
            found.setdefault(objectives, [a for a in arms if wanted[a.name] == objectives or a.role == "plain"])
    return found


def _title(objectives: tuple[str, ...], scenes: Sequence[CloudSet]) -> str:
    what = "" if objectives == TRADE_OFF else f" of {_versus(objectives)}"
    return f"Fronts{what} on validation" + ", expert by expert" * (len(scenes) > 1)


def _versus(objectives: Sequence[str]) -> str:
    return " against ".join(objectives)


def _tables(measure: Measure, scenes: Sequence[CloudSet], title: str) -> list[Table]:
    """One table for each LiNeS arm with its rivals; one of all arms where there is no LiNeS arm."""
    arms = [a for a in measure.arms if any(c.arm.name == a.name for s in scenes for c in s.clouds)]
    leaders = [a for a in arms if a.role == "lines"]
    tables = []
    for i, leader in enumerate(leaders):
        # LiNeS arms meet each other too, each pair once.
        rivals = [*opponents(leader, measure.arms), *(a for a in leaders[:i] if a.kind == leader.kind)]
        found = _table(scenes, leader, rivals, f"{title}: {leader.name} against …" if len(leaders) > 1 else title)
        tables.append(found if i == 0 else replace(found, note=""))
    return tables if leaders or not scenes else [_table(scenes, None, arms, title)]


def _table(scenes: Sequence[CloudSet], leader: ArmResult | None, rivals: Sequence[ArmResult], title: str) -> Table:
    rows: list[tuple[TableCell, ...]] = []
    for scene in scenes:
        rows += _rows(scene, leader, rivals)
    named = any(scene.group for scene in scenes) and len(scenes) > 1
    columns = ["arm", "expert", "tried", "on the front", "hypervolume", f"{leader.name if leader else ''} minus it"]
    kept = [i for i in range(len(columns)) if (i != 1 or named) and (i != 5 or leader is not None)]
    return Table(title, _note(scenes), tuple(columns[i] for i in kept), tuple(tuple(r[i] for i in kept) for r in rows))


def _note(scenes: Sequence[CloudSet]) -> str:
    scene = scenes[0]
    unit = "points of normalised accuracy" if scene.objectives == TRADE_OFF else "hundredths"
    note = f"Fronts of {_versus(scene.objectives)}, in {unit}"
    if len(scenes) > 1:
        return f"{note}, above the worst values among all arms of the same expert."
    corner_M = np.min([cloud.xy_PM.min(axis=0) for cloud in scene.clouds], axis=0)
    worst = (f"{name} {100 * value:.1f}" for name, value in zip(scene.objectives, corner_M, strict=True))
    return f"{note}, above the worst values among all arms: {' and '.join(worst)}."


def _rows(scene: CloudSet, leader: ArmResult | None, rivals: Sequence[ArmResult]) -> list[tuple[TableCell, ...]]:
    volumes = _volumes(scene)
    by_name = {cloud.arm.name: cloud for cloud in scene.clouds}
    shown = [arm for arm in (leader, *rivals) if arm is not None and arm.name in by_name]
    own = volumes.get(leader.name) if leader else None
    rows = []
    for arm in shown:
        difference = own - volumes[arm.name] if own is not None and arm is not leader else None
        rows.append(_row(scene, by_name[arm.name], volumes[arm.name], difference))
    return rows


def _row(scene: CloudSet, cloud: Cloud, volumes_S: Array, differences_S: Array | None) -> tuple[TableCell, ...]:
    volume = _interval(volumes_S, scene.samples)
    against = TableCell(NONE)
    if differences_S is not None:
        interval = _interval(differences_S, scene.samples)
        verdict = interval.verdict if len(cloud.labels) > 1 else ""  # a curve around a point is not better for that
        against = TableCell(decimal(interval.value, 1, True), _range(interval, True), verdict)
    return (
        TableCell(cloud.arm.name, tone="lead", colour=cloud.arm.colour),
        TableCell(scene.group or NONE),
        TableCell(str(len(cloud.labels))),
        TableCell(str(int(cloud.mask_P.sum()))),
        TableCell(decimal(volume.value, 1), _range(volume)),
        against,
    )


def _volumes(scene: CloudSet) -> dict[str, Array]:
    """Arm -> (S,) hypervolumes; in hundredths, so that values are far from 0."""
    found_PSM = {c.arm.name: 100 * np.concatenate([c.xy_PM[:, None], c.xy_PRM], axis=1) for c in scene.clouds}
    corner_SM = np.nanmin([np.nanmin(points, axis=0) for points in found_PSM.values()], axis=0)
    return {
        name: np.array([_volume(points[:, s], corner_SM[s]) for s in range(len(corner_SM))])
        for name, points in found_PSM.items()
    }


def _volume(points_PM: Array, corner_M: Array) -> float:
    """A point without a finite objective dominates nothing; rounded, so that equal fronts differ by exactly 0."""
    return round(hypervolume(points_PM[np.isfinite(points_PM).all(axis=1)], corner_M), 9)


def _interval(values_S: Array, samples: int) -> Interval:
    """Of the first value, by the percentiles of the others."""
    low, high = np.quantile(values_S[1:], (0.025, 0.975))
    return Interval(float(values_S[0]), float(low), float(high), samples)


def _range(interval: Interval, sign: bool = False) -> str:
    return f"[{decimal(interval.low, 1, sign)}, {decimal(interval.high, 1, sign)}]"


def _members(scenes: Sequence[CloudSet]) -> Table:
    """The recipes on the fronts."""
    rows = []
    for scene in scenes:
        for cloud in (c for c in scene.clouds if len(c.labels) > 1):
            for i in np.flatnonzero(cloud.mask_P)[np.argsort(-cloud.xy_PM[cloud.mask_P, 0], kind="stable")]:
                lead = TableCell(cloud.arm.name, tone="lead", colour=cloud.arm.colour)
                values = [TableCell(f"{100 * value:.1f}") for value in cloud.xy_PM[i]]
                point = TableCell(cloud.labels[i] or NONE)
                rows.append(
                    (lead, TableCell(scene.group or NONE), point, *values, TableCell(cloud.recipe_ids[i], tone="code"))
                )
    columns = ("arm", "expert", "point", *scenes[0].objectives, "recipe id")
    note = "Validation split; objectives in hundredths, best first by the first of them."
    return Table("The points on the fronts", note, columns, tuple(rows))
