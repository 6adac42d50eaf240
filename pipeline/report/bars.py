"""Figure: accuracy on each task, on test, of what was chosen."""

from collections.abc import Sequence

import plotly.graph_objects as go

from pipeline.report.arms import Arm
from pipeline.report.data import PRE_TRAINED
from pipeline.report.figure import Figure, Panel, panel, safe
from pipeline.report.measure import Measure, Place
from pipeline.report.results import OVER
from pipeline.report.table import Units
from pipeline.report.verdict import ROLE_WORDS


def bars(measure: Measure) -> list[Figure]:
    """One figure a kind, one panel a role."""
    titles = {"edit": "Edited experts, task by task", "merge": "Merges, task by task"}
    figures = []
    for kind, title in titles.items():
        arms = [a for a in measure.arms if a.kind in (PRE_TRAINED, kind)]
        drawn = [(role, p) for role in measure.roles(kind) if (p := _traces(measure, arms, measure.places[kind, role]))]
        panels = [_panel(measure, kind, role, traces) for role, traces in drawn]
        note = "Test split, with 95% intervals; the numbers are in the tables above."
        figures += [Figure(title, note, panels, arms, wide=len(measure.run.task_names) > 6)] if panels else []
    return figures


def _panel(measure: Measure, kind: str, role: str, traces: Sequence[object]) -> Panel:
    y = f"accuracy{Units(measure.run.percent).suffix}" if measure.run.percent else ROLE_WORDS[kind, role]
    layout = {
        "barmode": "group",
        "bargap": 0.25,
        "bargroupgap": 0.08,
        "yaxis_rangemode": "tozero",
        "xaxis_showgrid": False,
    }
    return panel(OVER[kind, role], traces, "", y, **layout)


def _traces(measure: Measure, arms: Sequence[Arm], places: Sequence[Place]) -> list[object]:
    units = Units(measure.run.percent)
    tasks = list(dict.fromkeys(place.task for place in places))
    traces: list[object] = []
    for arm in arms:
        found = [(t, measure.mean(arm.chosen, [p for p in places if p.task == t], "test")) for t in tasks]
        known = [(task, interval) for task, interval in found if interval is not None]
        if not known:
            continue
        error = {
            "type": "data",
            "symmetric": False,
            "array": [units.axis(i.high - i.value) for _, i in known],
            "arrayminus": [units.axis(i.value - i.low) for _, i in known],
            "color": "#7d8590",
            "thickness": 1.2,
            "width": 2,
        }
        pattern = {"shape": "/" if arm.control_of else "", "fillmode": "overlay", "size": 6, "solidity": 0.3}
        traces.append(
            go.Bar(
                x=[safe(task) for task, _ in known],
                y=[units.axis(i.value) for _, i in known],
                error_y=error,
                marker={
                    "color": arm.colour,
                    "pattern": pattern,
                },
                hovertext=[safe(arm.name)] * len(known),
                hovertemplate="%{hovertext}<br>%{x}: %{y:.1f}<extra></extra>",
                name=arm.name,
            )
        )
    return traces
