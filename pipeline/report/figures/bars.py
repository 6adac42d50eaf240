"""Figure: test accuracy of the chosen candidates on each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms, GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.figures.figure import SMALL_HEIGHT, Figure, Panel, error_bars, panel, safe
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

#: With more arms, each task has a small panel of its own, at least this wide.
MANY_ARMS, LEAST_WIDTH = 8, 260
#: Of the bars of arms and of controls, for each lap of the palette.
_PATTERNS = (("", "/"), (".", "x"), ("-", "+"), ("|", "\\"))
#: An arm with its mean on each task.
ArmMeans = tuple[ArmResult, Mapping[str, Interval]]


@dataclass(frozen=True, slots=True)
class BarScale:
    """The quantity of a bar's height: the split, and the divisor, as in `Measure.average`."""

    split: str = "test"
    own: bool | None = None


TEST = BarScale()


def bars(measure: Measure) -> list[Figure]:
    """Return one figure a bench, with one panel a role; of many arms, one a bench and role, with a panel a task."""
    titles = {"edit": "Edited experts, task by task", "merge": "Merges, task by task"}
    figures = []
    note = "Test split, with 95% intervals; the numbers are in the tables above."
    for bench in measure.benches:
        title, panels = bench.titled(titles[bench.kind]), {role: _panels(measure, bench, role) for role in bench.roles}
        if width := small_width(bench.arms):
            small = {f"{title}, {OVER[bench.kind, role]}": found for role, found in panels.items() if found}
            figures += [Figure(name, note, found, bench.arms, small=width) for name, found in small.items()]
        elif found := [panel for role in bench.roles for panel in panels[role]]:
            figures.append(Figure(title, note, found, bench.arms, wide=len(measure.run.task_names) > 6))
    return figures


def _panels(measure: Measure, bench: ComparableArms, role: str) -> list[Panel]:
    units = role_units(measure.run, role)
    means = [(arm, task_means(measure, arm, bench.over(role))) for arm in bench.arms]
    y = f"accuracy{units.suffix}" if units.percent else ROLE_WORDS[bench.kind, role]
    return bar_panels(OVER[bench.kind, role], means, units, y)


def small_width(arms: Sequence[object]) -> int:
    """Return the least width of a panel for each task if there are many arms, else 0, as `Figure.small`."""
    return LEAST_WIDTH if len(arms) > MANY_ARMS else 0


def bar_panels(title: str, means: Sequence[ArmMeans], units: Units, y: str) -> list[Panel]:
    """Return one panel with a group of bars for each task; of many arms, a small panel for each task, of equal axes."""
    if not (known := [(arm, found) for arm, found in means if found]):
        return []
    if not small_width(means):
        return [panel(title, [bar(arm, found, units) for arm, found in known], "", y, **GROUPED)]
    ends = [units.axis(end) for _, found in known for i in found.values() for end in (i.low, i.high)]
    axis = 1.05 * min(0.0, *ends), 1.05 * max(0.0, *ends)
    layout = GROUPED | {"height": SMALL_HEIGHT, "xaxis_showticklabels": False, "yaxis_range": axis}
    panels = []
    for task in dict.fromkeys(task for _, found in known for task in found):
        traces = [bar(arm, {task: found[task]}, units) for arm, found in known if task in found]
        panels.append(panel(task, traces, "", y, **layout))
    return panels


def task_means(
    measure: Measure, arm: ArmResult, places: Sequence[GroupTask], scale: BarScale = TEST
) -> dict[str, Interval]:
    """Return task -> the mean over its places, for the tasks that were scored at all of them."""
    by_task: dict[str, list[GroupTask]] = {}
    for place in places:
        by_task.setdefault(place.task, []).append(place)
    means = {task: measure.interval(arm.chosen, found, scale.split, scale.own) for task, found in by_task.items()}
    return {task: interval for task, interval in means.items() if interval}


def bar(arm: ArmResult, means: Mapping[str, Interval], units: Units) -> go.Bar:
    """Return the arm's bars, with their intervals."""
    error = error_bars(means.values(), units, color="#7d8590", thickness=1.2, width=2)
    shape = _PATTERNS[arm.lap % len(_PATTERNS)][bool(arm.control_of)]
    pattern = {"shape": shape, "fillmode": "overlay", "size": 6, "solidity": 0.3}
    return go.Bar(
        x=[safe(task) for task in means],
        y=units.axes(i.value for i in means.values()),
        error_y=error,
        marker={"color": arm.colour, "pattern": pattern},
        hovertext=[safe(arm.name)] * len(means),
        hovertemplate="%{hovertext}<br>%{x}: %{y:.1f}<extra></extra>",
        name=arm.name,
    )
