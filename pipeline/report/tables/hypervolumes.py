"""Tables: the hypervolume of each arm's front, and the difference between LiNeS's front and its rivals'.

Shape legend: P points of an arm, M objectives, S = 1 + R with the measurement first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.report.data.arms import ArmResult, opponents
from pipeline.report.data.clouds import TRADE_OFF, Cloud, CloudSet, averaged_clouds, group_clouds
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import shared_points
from pipeline.report.data.resamples import ACCURACY_RESAMPLES
from pipeline.report.data.volumes import Volumes
from pipeline.report.tables.table import NONE, Table, TableCell, Units, lead

#: Hypervolumes are those of objectives times 100.
_TIMES_100 = Units(percent=False, digits=1)
EXPLAINED = (
    "Hypervolume: the volume that a front dominates above these worst values. 95% intervals and paired differences "
    f"from {ACCURACY_RESAMPLES} resamples of the images, the same for all arms, with the worst values of each "
    "resample. Compare the numbers of points too: a front of more points, or one that contains another arm's points, "
    "dominates more by construction, and the search saw these images. Against a single point there is no verdict."
)


@dataclass(frozen=True)
class FrontSet:
    """Arms whose fronts are compared in adjacent rows.

    Attributes:
        group: the expert, or "".
        clouds: arm -> its points.
        volumes: their hypervolumes.
        judges_points: whether a difference to an arm of a single point has a verdict.
    """

    group: str
    clouds: dict[str, Cloud]
    volumes: Volumes
    judges_points: bool = True


def volume_tables(
    sets: Sequence[FrontSet], arms: Sequence[ArmResult], units: Units, titled: Callable[[str], str], note: str
) -> list[Table]:
    """Return one table for each LiNeS arm with its rivals, or one of all arms if there is no LiNeS arm.

    Args:
        sets: the fronts; one of several groups has its rows one after the other.
        arms: the arms that may have rows; those without points have none.
        units: of the hypervolumes.
        titled: makes a title from " against ..." (empty for a single table).
        note: of the first table.
    """
    leaders = [a for a in arms if a.role == "lines" and any(a.name in s.clouds for s in sets)]
    if not leaders:
        return [_table(sets, None, arms, units, titled(""), note)] if sets else []
    tables = []
    for i, leader in enumerate(leaders):
        # LiNeS arms meet each other too, each pair once.
        rivals = [*opponents(leader, arms), *(a for a in leaders[:i] if a.kind == leader.kind)]
        title = titled(f": {leader.name} against …" if len(leaders) > 1 else "")
        tables.append(_table(sets, leader, rivals, units, title, "" if i else note))
    return tables


def _table(
    sets: Sequence[FrontSet],
    leader: ArmResult | None,
    rivals: Sequence[ArmResult],
    units: Units,
    title: str,
    note: str,
) -> Table:
    shown = [*([leader] if leader else []), *rivals]
    rows = [_row(s, leader, arm, units) for s in sets for arm in shown if arm.name in s.clouds]
    named = any(s.group for s in sets) and len(sets) > 1
    columns = ["arm", "expert", "points", "on the front", "hypervolume", f"{leader.name if leader else ''} minus it"]
    kept = [i for i in range(len(columns)) if (i != 1 or named) and (i != 5 or leader is not None)]
    return Table(title, note, tuple(columns[i] for i in kept), tuple(tuple(r[i] for i in kept) for r in rows))


def _row(fronts: FrontSet, leader: ArmResult | None, arm: ArmResult, units: Units) -> tuple[TableCell, ...]:
    cloud = fronts.clouds[arm.name]
    against = TableCell(NONE)
    if leader is not None and arm is not leader and leader.name in fronts.clouds:
        against = units.difference(fronts.volumes.difference(leader.name, arm.name))
        if len(cloud.labels) == 1 and not fronts.judges_points:
            against = replace(against, tone="")
    return (
        lead(arm),
        TableCell(fronts.group or NONE),
        TableCell(str(len(cloud.labels))),
        TableCell(str(int(cloud.mask_P.sum()))),
        units.mean(fronts.volumes.mean(arm.name)),
        against,
    )


def front_tables(measure: Measure) -> list[Table]:
    """Return the hypervolumes of edits: averaged, by expert if each had its own search, and of several objectives."""
    tables = [table for bench in measure.benches for table in _bench_tables(measure, bench)]
    return [replace(tables[0], note=f"{tables[0].note} {EXPLAINED}"), *tables[1:]] if tables else []


def _bench_tables(measure: Measure, bench: ComparableArms) -> list[Table]:
    tables = []
    searched = _searched(measure, bench)
    # With one expert, an average is that expert's own front, which its objectives show.
    alone = len(bench.experts) == 1
    averaged = averaged_clouds(measure, bench) if bench.kind == "edit" else None
    if averaged is not None and not (alone and TRADE_OFF in searched):
        title = bench.titled("Fronts on validation" + ", mean over experts" * (not alone))
        tables += _tables(measure, [averaged], title)
    for objectives, arms in searched.items():
        sets = group_clouds(measure, objectives, arms)
        tables += _tables(measure, sets, bench.titled(_title(objectives, sets)))
        if sets and list(objectives) in measure.run.provenance["objectives"].values():
            tables.append(_members(sets))
    return tables


def _searched(measure: Measure, bench: ComparableArms) -> dict[tuple[str, ...], list[ArmResult]]:
    """Objectives -> the arms to compare group by group: those that searched for these, and the plain ones."""
    arms = [a for a in bench.arms if a.kind == bench.kind]
    own = {a.name: tuple(measure.run.provenance["objectives"].get(a.name, ())) for a in arms}
    found: dict[tuple[str, ...], list[ArmResult]] = {}
    if bench.kind == "edit" and bench.normalised_over("control") and any(not shared_points(a) for a in arms):
        found[TRADE_OFF] = arms
    for objectives in dict.fromkeys(own.values()):
        if len(objectives) > 1:
            found.setdefault(objectives, [a for a in arms if own[a.name] == objectives or a.role == "plain"])
    return found


def _title(objectives: tuple[str, ...], sets: Sequence[CloudSet]) -> str:
    what = "" if objectives == TRADE_OFF else f" of {' against '.join(objectives)}"
    return f"Fronts{what} on validation" + ", expert by expert" * (len(sets) > 1)


def _tables(measure: Measure, sets: Sequence[CloudSet], title: str) -> list[Table]:
    # A curve around a point dominates more by construction.
    fronts = [FrontSet(s.group, {c.arm.name: c for c in s.clouds}, _volumes(s), judges_points=False) for s in sets]
    note = _note(sets) if sets else ""
    return volume_tables(fronts, measure.arms, _TIMES_100, lambda against: title + against, note)


def _volumes(clouds: CloudSet) -> Volumes:
    """Of the objectives times 100, so that values are far from 0; above the worst values of each resample."""
    found = {c.arm.name: 100 * c.xy_SPM for c in clouds.clouds}
    corner_SM = np.nanmin([np.nanmin(xy_SPM, axis=1) for xy_SPM in found.values()], axis=0)
    return Volumes.above(found, corner_SM, clouds.samples)


def _note(sets: Sequence[CloudSet]) -> str:
    first = sets[0]
    unit = "in points of normalised accuracy" if first.objectives == TRADE_OFF else "each times 100"
    note = f"Fronts of {' against '.join(first.objectives)}, {unit}"
    if len(sets) > 1:
        return f"{note}, above the worst values among all arms of the same expert."
    corner_M = np.min([cloud.xy_PM.min(axis=0) for cloud in first.clouds], axis=0)
    worst = (f"{name} {100 * value:.1f}" for name, value in zip(first.objectives, corner_M, strict=True))
    return f"{note}, above the worst values among all arms: {' and '.join(worst)}."


def _members(sets: Sequence[CloudSet]) -> Table:
    """The recipes on the fronts."""
    rows = []
    for clouds in sets:
        for cloud in (c for c in clouds.clouds if len(c.labels) > 1):
            for i in np.flatnonzero(cloud.mask_P)[np.argsort(-cloud.xy_PM[cloud.mask_P, 0], kind="stable")]:
                values = [TableCell(f"{100 * value:.1f}") for value in cloud.xy_PM[i]]
                place = (TableCell(clouds.group or NONE), TableCell(cloud.labels[i] or NONE))
                recipe = TableCell(cloud.candidates[i].recipe_id, tone="code")
                rows.append((lead(cloud.arm), *place, *values, recipe))
    columns = ("arm", "expert", "point", *sets[0].objectives, "recipe id")
    note = "Validation split; objectives times 100, sorted by the first of them, best first."
    return Table("The points on the fronts", note, columns, tuple(rows))
