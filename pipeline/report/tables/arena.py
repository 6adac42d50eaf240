"""The arena: its arms and their reversed controls, ranked on test for each set of experts, accuracy beside cost."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.merging.needs import learned_from
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Average, Measure
from pipeline.report.data.ranking import Rank, ranked
from pipeline.report.tables.table import NONE, Table, TableCell, Units, counted, lead
from pipeline.spec.arena import Arena, arms_of

_MEANINGS = (
    "Behind the best: the best model's mean minus the row's, with intervals that hold for all pairs of rows at once "
    "(95%, by bootstrap over the test samples): they allow for the number of comparisons, and for the best being "
    "picked by the same samples. A tie is not shown to be worse than the best.",
    "Free scalars: the numbers that were searched. Data: what method and profile learn from, besides the validation "
    "split that chooses. Candidates: scored on validation; samples: of them, without those that were not needed. "
    "Seconds: of all workers, to set the weights and to score them.",
)


def arena_tables(measure: Measure) -> list[Table]:
    """Return the ranking of each set of experts; none if the spec has no arena, or nothing is scored on test."""
    written = measure.run.provenance["spec"].get("arena")
    if not written:
        return []
    sets: dict[str, set[str]] = {}
    for name, (label, _, _) in arms_of(Arena.model_validate(written)).items():
        sets.setdefault(label, set()).add(name)
    benches = [bench for bench in measure.benches if bench.kind == "merge"]
    tables = [_table(measure, bench, label, names) for label, names in sets.items() for bench in benches]
    return [table for table in tables if table]


def _table(measure: Measure, bench: ComparableArms, label: str, names: set[str]) -> Table | None:
    places = bench.over("target")
    own = [arm for arm in bench.arms if arm.name in names or arm.control_of in names]
    found = {arm.name: measure.average(arm.chosen, places, "test") for arm in own}
    averages = {name: average for name, average in found.items() if average}
    if not averages:
        return None
    arms = [arm for arm in own if arm.name in averages]
    ranks = ranked([average.cells for average in averages.values()])
    missing = [name for name in found if name not in averages]
    left = f" Without a score on every task: {', '.join(missing)}." * bool(missing)
    budget = measure.run.provenance["spec"]["arena"]["budget"]["evaluations"]
    scope = f"Test split, mean accuracy over {counted(len(places), 'task')}; {budget} candidates for each arm."
    rows = tuple(_row(measure, bench, arms[rank.place], place, rank) for place, rank in enumerate(ranks, 1))
    columns = (
        "",
        "model",
        "mean accuracy",
        "behind the best",
        "free scalars",
        "data",
        "candidates",
        "samples",
        "seconds",
    )
    base = measure.average(bench.arms[0].chosen, places, "test")
    note = f"{scope} {_said(arms, ranks)}{_unchanged(base, averages)}{left} {' '.join(_MEANINGS)}"
    return Table(f"Ranking, {label}" if label else "Ranking", note, columns, rows)


def _row(measure: Measure, bench: ComparableArms, arm: ArmResult, place: int, rank: Rank) -> tuple[TableCell, ...]:
    units = Units(measure.run.percent)
    behind = rank.behind
    tone = "tie" if rank.ties else "worse"
    return (
        TableCell(str(place)),
        lead(arm),
        units.mean(measure.mean(arm.chosen, bench.over("target"), "test")),
        TableCell(units.number(behind.value), units.range(behind, True), tone),
        TableCell(str(max(len(candidate.point) for candidate in arm.candidates))),
        TableCell(_data(arm)),
        TableCell(f"{len(arm.candidates):,}"),
        TableCell(f"{_samples(measure, arm):,}"),
        TableCell(_seconds(measure, arm)),
    )


def _said(arms: Sequence[ArmResult], ranks: Sequence[Rank]) -> str:
    """Which models tie with the best, in a sentence."""
    best, *others = [arms[rank.place].name for rank in ranks if rank.ties]
    if not others:
        return f"{best} is better than all others."
    constants = [name for name in others if not name.partition(" + ")[1]]
    without = f"; of these without a profile over depth: {', '.join(constants)}" * bool(constants)
    return f"{best} is first, and {counted(len(others), 'other')} of {len(ranks) - 1} tie with it{without}."


def _unchanged(base: Average | None, averages: Mapping[str, Average]) -> str:
    """Which choices answer as the pre-trained model does, in a sentence."""
    same = [name for name, average in averages.items() if base and _equal(average, base)]
    return f" As the pre-trained model on every sample: {', '.join(same)}." * bool(same)


def _equal(one: Average, other: Average) -> bool:
    return all(np.array_equal(a.a, b.a) for a, b in zip(one.cells, other.cells, strict=True))


def _data(arm: ArmResult) -> str:
    found = {learned_from(c.recipe.method, c.recipe.scaling) for c in arm.candidates if c.recipe.method != "zero"}
    return "; ".join(sorted(found)) or NONE


def _samples(measure: Measure, arm: ArmResult) -> int:
    spared, whole = measure.run.spared.get(arm.name, (0, 0))
    sizes = {str(task["name"]): int(task["n"]["val"]) for task in measure.run.provenance["tasks"]}
    scored = next((measure.run.scored(c) for c in arm.candidates if not c.stopped and not c.failure), {})
    each = sum(sizes[task] for task, split in scored if split == "val")
    return (whole or each * sum(not c.failure for c in arm.candidates)) - spared


def _seconds(measure: Measure, arm: ArmResult) -> str:
    seconds = measure.run.provenance.get("arm_seconds", {}).get(arm.name)
    return NONE if seconds is None else f"{seconds:,.1f}"
