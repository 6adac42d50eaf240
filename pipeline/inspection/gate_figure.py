"""The gate as a figure: what removing each third of the blocks costs."""

from collections.abc import Sequence
from textwrap import wrap

import plotly.graph_objects as go

from pipeline.records.gate import THIRDS, GatedEdit
from pipeline.report.data.arms import ArmResult, legend_arm
from pipeline.report.figures.figure import Figure, Panel, error_bars, panel, safe
from pipeline.report.tables.gate import title, units_of

#: Characters of a line of a label; a longer one would stand slanted and squash the bars.
_WIDTH = 18


def gate_figure(edits: Sequence[GatedEdit]) -> Figure:
    """Return one panel for each role, with three bars for each edit."""
    legend = [legend_arm(f"without the {third} third", i) for i, third in enumerate(THIRDS)]
    roles = dict.fromkeys(role for edit in edits for role in edit.roles)
    panels = [_panel(role, [e for e in edits if role in e.roles], legend) for role in roles]
    note = "What is lost on validation without the update of a third of the blocks; below 0 it is a gain."
    return Figure("Gate: a third of the blocks left out", note, panels, legend)


def _panel(role: str, edits: Sequence[GatedEdit], legend: Sequence[ArmResult]) -> Panel:
    units = units_of(edits[0], role)
    names = ["<br>".join(map(safe, wrap(title(edit), _WIDTH))) for edit in edits]
    bars = []
    for third, arm in zip(THIRDS, legend, strict=True):
        costs = [edit.roles[role].cost[third] for edit in edits]
        bars.append(
            go.Bar(
                x=names,
                y=[units.axis(cost.value) for cost in costs],
                error_y=error_bars(costs, units),
                marker={"color": arm.colour},
                hovertemplate="%{x}: %{y:.3g}<extra></extra>",
                name=arm.name,
            )
        )
    return panel(f"{role} loses", bars, "", f"loss{units.suffix.replace('%', 'points')}", xaxis_type="category")
