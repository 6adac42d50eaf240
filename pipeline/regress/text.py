"""A comparison with a baseline as people read it: a table and sentences, for the terminal and for Markdown."""

from collections.abc import Sequence

from pipeline.regress.compare import VERDICTS, BaselineComparison, Regression
from pipeline.report.rendering import render
from pipeline.report.tables.table import Table, TableCell, Units

_ORDER = {verdict: i for i, verdict in enumerate(VERDICTS)}


def units(comparison: BaselineComparison) -> Units:
    """Per cent for accuracies."""
    return Units(comparison.metric == "accuracy")


def named(comparison: BaselineComparison) -> str:
    """The task, with its role where it is no target."""
    return comparison.task + (f" ({comparison.role})" if comparison.role != "target" else "")


def table(found: Regression) -> Table:
    """One row a comparison, regressions first."""
    note = (
        f"Means on test, paired by sample; {1 - found.level:.0%} intervals of the difference by bootstrap; p: exact "
        f"McNemar for outcomes of 0 and 1, else sign flips; adjusted by Holm over all {len(found.comparisons)} "
        f"comparisons of this call. Regressed: adjusted p at most {found.level:g} and worse by more than tolerance, "
        "or below the minimum. Equal: these samples exclude a loss beyond the tolerance. No evidence: they do not; "
        "detectable is the smallest change that this test would find four times in five."
    )
    columns = ("arm", "task", "baseline", "now", "difference", "p, adjusted", "tolerance", "detectable", "verdict")
    rows = sorted(found.comparisons, key=lambda c: _ORDER[c.verdict])
    return Table("Against the baseline", note, columns, tuple(_row(c) for c in rows))


def _row(c: BaselineComparison) -> tuple[TableCell, ...]:
    unit = units(c)
    difference = TableCell(unit.number(c.difference.value, True), unit.range(c.difference, True))
    numbers = (
        TableCell(unit.number(c.before)),
        TableCell(unit.number(c.now)),
        difference,
        TableCell(f"{c.adjusted:.2g}"),
    )
    limits = (TableCell(unit.number(c.tolerance)), TableCell(unit.number(c.detectable)))
    return (TableCell(c.arm, tone="lead"), TableCell(named(c)), *numbers, *limits, TableCell(c.verdict, tone=c.verdict))


def numbers(c: BaselineComparison) -> str:
    """One comparison in a sentence."""
    unit = units(c)
    difference = f"{unit.number(c.difference.value, True)} {unit.range(c.difference, True)}{unit.points}"
    said = (
        f"{unit.number(c.before)} → {unit.number(c.now)}{unit.suffix}, difference {difference}, {c.test} p {c.p:.2g}, "
        f"adjusted {c.adjusted:.2g}, tolerance {unit.number(c.tolerance)}, detectable {unit.number(c.detectable)}"
    )
    if c.below_minimum and c.minimum is not None:
        said += f"; below the minimum {unit.number(c.minimum)}"
    return said


def sentences(found: Regression) -> list[str]:
    """What it came to, what was left out, which choices changed, and what else differs between the two."""
    counts = ", ".join(f"{len(found.having(v))} {v}" for v in VERDICTS if found.having(v))
    told = [f"{found.run.place} against {found.baseline.place}: {counts}"]
    told += [f"regressed: {c.arm}, {named(c)}: {numbers(c)}" for c in found.having("regressed")]
    told += [f"not compared: {line}" for line in found.left_out]
    told += [f"another choice: {line}" for line in _choices(found.comparisons)]
    return told + [f"changed since: {line}" for line in found.changes]


def _choices(comparisons: Sequence[BaselineComparison]) -> list[str]:
    """Each arm and expert once."""
    changed = {(c.arm, group): pair for c in comparisons for group, pair in c.recipes.items()}
    return [
        f"{arm}{f', {group}' if group else ''}: {before} → {now}" for (arm, group), (before, now) in changed.items()
    ]


def markdown(found: Regression) -> str:
    """The same as a page of Markdown."""
    first, *more = sentences(found)
    return render.markdown("regress.md.j2", title=found.run.about["name"], first=first, more=more, table=table(found))
