"""A comparison with a baseline as a table and sentences, for the terminal and for Markdown."""

from collections.abc import Sequence

from pipeline.regress.compare import VERDICTS, BaselineComparison, Regression
from pipeline.regress.self_test import TestedComparison
from pipeline.report.rendering import render
from pipeline.report.tables.table import Table, TableCell, Units
from tasks.metrics import lower_is_better

_ORDER = {verdict: i for i, verdict in enumerate(VERDICTS)}


def task_label(comparison: BaselineComparison | TestedComparison) -> str:
    """Return the task, with its role if it is not a target."""
    return comparison.task + (f" ({comparison.role})" if comparison.role != "target" else "")


def comparison_table(found: Regression) -> Table:
    """Return one row a comparison, regressions first."""
    note = (
        f"Means on test, paired by sample; {1 - found.level:.0%} intervals of the difference by bootstrap. p: exact "
        f"McNemar test for outcomes of 0 and 1, else a sign-flip test; adjusted by Holm over all "
        f"{len(found.comparisons)} comparisons of this call. Regressed: adjusted p at most {found.level:g} and worse "
        "by more than the tolerance, or beyond the minimum (of bits per byte, which are better when lower, the "
        "maximum). Equal: these samples exclude a loss beyond the tolerance. No evidence: they do not. Detectable: the "
        "smallest change that this test finds four times in five."
    )
    columns = ("arm", "task", "baseline", "now", "difference", "p, adjusted", "tolerance", "detectable", "verdict")
    rows = sorted(found.comparisons, key=lambda c: _ORDER[c.verdict])
    return Table("Against the baseline", note, columns, tuple(_row(c) for c in rows))


def _row(c: BaselineComparison) -> tuple[TableCell, ...]:
    unit = Units.of_metric(c.metric)
    difference = TableCell(unit.number(c.difference.value, True), unit.range(c.difference, True))
    before, now, *limits = (TableCell(unit.number(v)) for v in (c.before, c.now, c.tolerance, c.detectable))
    numbers = (before, now, difference, TableCell(f"{c.adjusted:.2g}"), *limits)
    return (TableCell(c.arm, tone="lead"), TableCell(task_label(c)), *numbers, TableCell(c.verdict, tone=c.verdict))


def comparison_numbers(c: BaselineComparison) -> str:
    """Return the numbers of one comparison in a line."""
    unit = Units.of_metric(c.metric)
    difference = f"{unit.number(c.difference.value, True)} {unit.range(c.difference, True)}{unit.points}"
    numbers = (
        f"{unit.number(c.before)} → {unit.number(c.now)}{unit.suffix}, difference {difference}, {c.test} p {c.p:.2g}, "
        f"adjusted {c.adjusted:.2g}, tolerance {unit.number(c.tolerance)}, detectable {unit.number(c.detectable)}"
    )
    if c.out_of_bounds and c.bound is not None:
        side = "above the maximum" if lower_is_better(c.metric) else "below the minimum"
        numbers += f"; {side} {unit.number(c.bound)}"
    return numbers


def sentences(found: Regression) -> list[str]:
    """Return the counts of verdicts, the regressions, what was left out, changed choices, and other differences."""
    counts = ", ".join(f"{len(found.having(v))} {v}" for v in VERDICTS if found.having(v))
    lines = [f"{found.run.place} against {found.baseline.place}: {counts}"]
    lines += [f"regressed: {c.arm}, {task_label(c)}: {comparison_numbers(c)}" for c in found.having("regressed")]
    lines += [f"not compared: {line}" for line in found.left_out]
    lines += [f"another choice: {line}" for line in _choices(found.comparisons)]
    return lines + [f"changed since: {line}" for line in found.changes]


def _choices(comparisons: Sequence[BaselineComparison]) -> list[str]:
    """Each arm and expert once."""
    changed = {(c.arm, group): pair for c in comparisons for group, pair in c.recipes.items()}
    return [
        f"{arm}{f', {group}' if group else ''}: {before} → {now}" for (arm, group), (before, now) in changed.items()
    ]


def comparison_markdown(found: Regression) -> str:
    """Return the table and the sentences as a page of Markdown."""
    first, *more = sentences(found)
    title, table = found.run.about["name"], comparison_table(found)
    return render.markdown("regress.md.j2", title=title, first=first, more=more, table=table)
