"""The tables of an arena: its arms and their controls, ranked on test, accuracy beside cost."""

from collections.abc import Sequence

import numpy as np

from pipeline.merging.needs import learned_from
from pipeline.report.data.arena import Ranking
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Average, Measure
from pipeline.report.data.ranking import Rank
from pipeline.report.tables.table import NONE, Table, TableCell, Units, counted, role_units
from pipeline.report.tables.verdict import ROLE_WORDS
from search.intervals import Interval

#: Differences of objectives are multiplied by 100.
_TIMES_100 = Units(percent=True)
_BEHIND = (
    "Behind the best: the best model's {what} minus the row's, with intervals that hold for all pairs of rows at once "
    "(95%): they allow for the number of comparisons, and for the best being picked by the same samples. A tie is not "
    "shown to be worse than the best."
)
_SCALE = (
    "In the objective, target is divided by the fine-tuned expert's accuracy and control by the pre-trained model's: "
    "the fine-tuned expert's target is 1, and so is its control if it forgets nothing."
)
_COST = (
    "Free scalars: the numbers that were searched{each}. Data: what method and profile learn from, besides the "
    "validation split that chooses. Samples: scored on validation, without those that were not needed. Seconds: of all "
    "workers, to set the weights and to score them; the first arm that uses an expert also pays for reading it. "
    "Memory: the most that a worker's tensors took at once to set the weights, or to learn what they need, besides "
    "base, task vectors and the weights."
)


def arena_tables(measure: Measure, rankings: Sequence[Ranking]) -> list[Table]:
    """Return the ranking of each set of experts; of edits of several experts, also that of each expert."""
    tables = []
    for ranking in rankings:
        tables.append(_edits(measure, ranking) if ranking.objectives else _merges(measure, ranking))
        tables += [_by_expert(ranking)] if ranking.by_expert else []
    return tables


def _merges(measure: Measure, ranking: Ranking) -> Table:
    bench = ranking.bench
    places = bench.over("target")
    scope = f"Test split, mean accuracy over {counted(len(places), 'task')}; {_budget(measure)} for each arm."
    said = f"{_said(ranking)}{_unchanged(measure, ranking)}{_left(ranking)}"
    note = f"{scope} {said} {_BEHIND.format(what='mean')} {_COST.format(each='')}"
    units = Units(measure.run.percent)
    return _table(measure, ranking, note, (), units)


def _edits(measure: Measure, ranking: Ranking) -> Table:
    experts = counted(len(ranking.bench.experts), "expert")
    scope = (
        f"Test split, mean over {experts}, each edited by itself; {_budget(measure)} for each arm and expert. Ranked "
        f"by {what(ranking)}, by which validation chose; target and control are accuracies."
    )
    behind = _BEHIND.format(what="objective times 100")
    note = f"{scope} {_said(ranking)}{_left(ranking)} {_SCALE} {behind} {_COST.format(each=' for each expert')}"
    values = tuple(TableCell(f"{value:.4f}") for value in ranking.values)
    return _table(measure, ranking, note, ((what(ranking), values),), _TIMES_100)


def what(ranking: Ranking) -> str:
    """Return the objective in words."""
    return " + ".join(ranking.objectives if len(ranking.objectives) == 1 else (f"({o})" for o in ranking.objectives))


def _table(
    measure: Measure,
    ranking: Ranking,
    note: str,
    values: Sequence[tuple[str, Sequence[TableCell]]],
    units: Units,
) -> Table:
    """Return a ranking; `values` are columns before those of the roles, `units` those of the differences."""
    bench = ranking.bench
    roles = [role for role in bench.roles if not role.startswith("ood")]
    rows = []
    for i, (arm, rank) in enumerate(zip(ranking.arms, ranking.ranks, strict=True)):
        means = [role_units(measure.run, r).mean(measure.mean(arm.chosen, bench.over(r), "test")) for r in roles]
        own = [cells[i] for _, cells in values]
        rows.append((TableCell(str(i + 1)), _named(arm), *own, *means, _behind(rank, units), *_cost(measure, arm)))
    names = [name for name, _ in values] + [ROLE_WORDS[bench.kind, role] for role in roles]
    costs = ("free scalars", "data", "samples", "seconds", "memory, MB")
    return Table(ranking.title, note, ("", "model", *names, "behind the best", *costs), tuple(rows))


def _by_expert(ranking: Ranking) -> Table:
    """Return how far each edit is behind the best one of each expert."""
    rows = []
    for arm in ranking.arms:
        ranks = [found.get(arm.name) for found in ranking.by_expert.values()]
        rows.append((_named(arm), *(_behind(rank, _TIMES_100) if rank else TableCell(NONE) for rank in ranks)))
    note = (
        f"Test split: how far each edit is behind the best edit of the same expert, as {what(ranking)} times 100, "
        "with intervals that hold for all pairs of an expert's edits at once (95%)."
    )
    return Table(f"{ranking.title}, expert by expert", note, ("model", *ranking.by_expert), tuple(rows))


def _named(arm: ArmResult) -> TableCell:
    """Return an arm's name without its mark: the figure above has marks of its own."""
    return TableCell(arm.name, tone="lead")


def _behind(rank: Rank, units: Units) -> TableCell:
    behind: Interval = rank.behind
    return TableCell(units.number(behind.value), units.range(behind, True), "tie" if rank.ties else "worse")


def _budget(measure: Measure) -> str:
    return f"{measure.run.provenance['spec']['arena']['budget']['evaluations']} candidates"


def _left(ranking: Ranking) -> str:
    parts = {"Without a score on every task": ranking.missing, "Chosen by other objectives": ranking.otherwise}
    return "".join(f" {why}, and not ranked: {', '.join(names)}." for why, names in parts.items() if names)


def _said(ranking: Ranking) -> str:
    """Which models tie with the best, in a sentence."""
    tied = [arm for arm, rank in zip(ranking.arms, ranking.ranks, strict=True) if rank.ties]
    best, *others = [arm.name for arm in tied]
    if len(ranking.ranks) == 1:
        return f"{best} is the only one that is ranked."
    if not others:
        return f"{best} is better than all others."
    constants = [arm.name for arm in tied[1:] if arm.role == "plain"]
    without = f"; of these without a profile over depth: {', '.join(constants)}" * bool(constants)
    return f"{best} is first, and {counted(len(others), 'other')} of {len(ranking.ranks) - 1} tie with it{without}."


def _unchanged(measure: Measure, ranking: Ranking) -> str:
    """Which choices answer as the pre-trained model does, in a sentence."""
    places = ranking.bench.over("target")
    base, *found = (measure.average(arm.chosen, places, "test") for arm in (ranking.bench.arms[0], *ranking.arms))
    pairs = zip(ranking.arms, found, strict=True)
    same = [arm.name for arm, average in pairs if base and average and _equal(average, base)]
    return f" As the pre-trained model on every sample: {', '.join(same)}." * bool(same)


def _equal(one: Average, other: Average) -> bool:
    return all(np.array_equal(a.a, b.a) for a, b in zip(one.cells, other.cells, strict=True))


def _cost(measure: Measure, arm: ArmResult) -> tuple[TableCell, ...]:
    return (
        TableCell(str(max(len(candidate.point) for candidate in arm.candidates))),
        TableCell(_data(arm)),
        TableCell(f"{_samples(measure, arm):,}"),
        TableCell(_seconds(measure, arm)),
        TableCell(_memory(measure, arm)),
    )


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


def _memory(measure: Measure, arm: ArmResult) -> str:
    """Return the larger of what setting the weights took and what a method's learning did."""
    learning = max((int(candidate.note.get("peak_bytes", 0)) for candidate in arm.candidates), default=0)
    most = max(learning, measure.run.provenance.get("arm_memory", {}).get(arm.name, 0))
    return f"{most / 1e6:,.1f}" if most else NONE
