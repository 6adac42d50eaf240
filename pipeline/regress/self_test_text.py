"""A self-test of the gate as a table and sentences, for the terminal and for Markdown."""

import numpy as np

from pipeline.regress.self_test import DEVIATIONS, POINTS, Rate, SelfTest, TestedComparison
from pipeline.regress.text import task_label
from pipeline.report.rendering import render
from pipeline.report.tables.table import NONE, Table, TableCell, Units

_TITLE = "`lines regress` on unchanged models"


def self_test_table(tested: SelfTest) -> Table:
    """Return one row a comparison: false alarms, and how often each planted drop is found."""
    note = (
        f"{tested.resamples:,} simulated calls at this gate's level, tolerances and bounds; 95% intervals of the "
        "simulation. False alarms: calls without any change in which the comparison regressed. Then calls in which "
        "it alone got worse by that much: how many found it. A drop below the tolerance is not to be found."
    )
    if any(c.metric != "accuracy" for c in tested.comparisons):
        note += " SD: standard deviations over samples, for metrics other than accuracy."
    drops = [_drop(tested, i) for i in range(len(POINTS))]
    columns = ("arm", "task", "samples", "tolerance", "false alarms", *(f"finds {drop}" for drop in drops))
    return Table(_TITLE, note, columns, tuple(_row(c) for c in tested.comparisons))


def self_test_sentences(tested: SelfTest) -> list[str]:
    """Return the rate of false alarms of a call, the power at each drop, and what was left out."""
    place, baseline = tested.run.place, tested.baseline
    how = (
        f"{place} and {baseline.place}, samples drawn again and exchanged at random"
        if baseline
        else f"{place} against itself, on two independent draws of its samples"
    )
    lines = [
        f"{how}: {_per_cent(tested.alarms)} of the calls raise a false alarm, at a two-sided level of {tested.level:g}"
    ]
    for i in range(len(POINTS)):
        if rates := [rate.value for c in tested.comparisons if (rate := c.found[i]) is not None]:
            low, middle, high = np.quantile(rates, [0, 0.5, 1])
            lines.append(
                f"a drop of {_drop(tested, i)} in one of {len(tested.comparisons)} comparisons is found by "
                f"{middle:.0%} of the calls ({low:.0%} to {high:.0%}, by comparison)"
            )
    return lines + [f"not compared: {line}" for line in tested.left_out]


def self_test_markdown(tested: SelfTest) -> str:
    """Return the table and the sentences as a page of Markdown."""
    first, *more = self_test_sentences(tested)
    title = f"Self-test of the gate of {tested.run.about['name']}"
    return render.markdown("regress.md.j2", title=title, first=first, more=more, table=self_test_table(tested))


def _drop(tested: SelfTest, place: int) -> str:
    """The size of a drop, in the units of the metrics that occur."""
    metrics = {c.metric == "accuracy" for c in tested.comparisons}
    points = [f"{100 * POINTS[place]:g} point{'s' * (POINTS[place] != 0.01)}"] if True in metrics else []
    return " or ".join([*points, *([f"{DEVIATIONS[place]:g} SD"] if False in metrics else [])])


def _row(c: TestedComparison) -> tuple[TableCell, ...]:
    found = [TableCell(NONE) if rate is None else _rate(rate) for rate in c.found]
    tolerance = Units.of_metric(c.metric).number(c.tolerance)
    about = (TableCell(c.arm, tone="lead"), *map(TableCell, (task_label(c), f"{c.n:,}", tolerance)))
    return (*about, _rate(c.alarms), *found)


def _rate(rate: Rate) -> TableCell:
    return TableCell(f"{rate.value:.1%}", f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]")


def _per_cent(rate: Rate) -> str:
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]"
