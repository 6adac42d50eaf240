"""Figure: test accuracy of the chosen candidates on each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms, GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.figures.figure import Figure, Panel, error_bars, panel, safe
from pipeline.report.tables.results import OVER
from pipeline.report.tables.table import Units, role_units
from pipeline.report.tables.verdict import ROLE_WORDS
from search.intervals import Interval

GROUPED = {
    "barmode": "group",
    "bargap": 0.25,
    "bargroupgap": 0.08,
    "yaxis_rangemode": "tozero",
    "xaxis_showgrid": False,
}


@dataclass(frozen=True, slots=True)
class BarScale:
    """The quantity of a bar's height: the split, and the divisor, as in `Measure.average`."""

    split: str = "test"
    own: bool | None = None


TEST = BarScale()


def bars(measure: Measure) -> list[Figure]:
    """Return one figure a bench, with one panel a role."""
    titles = {"edit": "Edited experts, task by task", "merge": "Merges, task by task"}
    figures = []
    for bench in measure.benches:
        panels = [shown for role in bench.roles if (shown := _panel(measure, bench, role))]
        note = "Test split, with 95% intervals; the numbers are in the tables above."
        wide = len(measure.run.task_names) > 6
        title = bench.titled(titles[bench.kind])
        figures += [Figure(title, note, panels, bench.arms, wide=wide)] if panels else []
    return figures


def _panel(measure: Measure, bench: ComparableArms, role: str) -> Panel | None:
    units = role_units(measure.run, role)
    means = [(arm, task_means(measure, arm, bench.over(role))) for arm in bench.arms]
    traces = [bar(arm, found, units) for arm, found in means if found]
    y = f"accuracy{units.suffix}" if units.percent else ROLE_WORDS[bench.kind, role]
    return panel(OVER[bench.kind, role], traces, "", y, **GROUPED) if traces else None


def task_means(
    measure: Measure, arm: ArmResult, places: Sequence[GroupTask], scale: BarScale = TEST
) -> dict[str, Interval]:
    """Return task -> the mean over its places, for the tasks that were scored at all of them."""
    by_task: dict[str, list[GroupTask]] = {}
    for place in places:
        by_task.setdefault(place.task, []).append(place)
    averages = {task: measure.average(arm.chosen, found, scale.split, scale.own) for task, found in by_task.items()}
    return {task: average.interval for task, average in averages.items() if average}


def bar(arm: ArmResult, means: Mapping[str, Interval], units: Units) -> go.Bar:
    """Return the arm's bars, with their intervals."""
    error = error_bars(means.values(), units, color="#7d8590", thickness=1.2, width=2)
    pattern = {"shape": "/" if arm.control_of else "", "fillmode": "overlay", "size": 6, "solidity": 0.3}
    return go.Bar(
        x=[safe(task) for task in means],
        y=units.axes(i.value for i in means.values()),
        error_y=error,
        marker={"color": arm.colour, "pattern": pattern},
        hovertext=[safe(arm.name)] * len(means),
        hovertemplate="%{hovertext}<br>%{x}: %{y:.1f}<extra></extra>",
        name=arm.name,
    )
