"""Exhibit: lambda of each block of what was chosen, mean over the experts of an edit."""

import numpy as np
import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.exhibits.scope import caption, subjects
from pipeline.report.figures.depths import block_ticks, profile
from pipeline.report.figures.figure import Figure, panel, safe
from pipeline.report.tables.table import Table, TableCell
from pipeline.spec.exhibits import CoefficientsExhibit


def figure(title: str, exhibit: CoefficientsExhibit, measure: Measure) -> Figure:
    """One panel, one line an arm."""
    arms = subjects(measure, exhibit.arms)
    found = [(arm, mean) for arm in arms if (mean := _mean_profile(measure, arm)) is not None]
    traces = [_trace(arm, mean) for arm, mean in found]
    panels = [panel("", traces, "residual block", "λ", xaxis_dtick=block_ticks(measure))] if traces else []
    said = (
        "λ multiplies the combined task vector. Of edited experts: the mean over what was chosen for each of them. "
        "Of learned coefficients: their mean over the experts."
    )
    note = caption(exhibit.note, said)
    rows = [
        (TableCell(a.name, tone="lead", colour=a.colour), *(TableCell(f"{v:.3f}") for v in mean)) for a, mean in found
    ]
    blocks = len(measure.run.provenance["layers"]["block_sizes"])
    columns = ("arm", "outside", *(f"block {i + 1}" for i in range(blocks)))
    return Figure(title, note, panels, arms, Table(title, "", columns, tuple(rows)))


def _mean_profile(measure: Measure, arm: ArmResult) -> list[float] | None:
    """Outside the blocks, then of each block; None where nothing was chosen."""
    chosen = [candidate for group in arm.groups if (candidate := arm.chosen(group)) is not None]
    profiles = [found for candidate in chosen if (found := profile(measure, candidate)) is not None]
    return [float(value) for value in np.mean(profiles, axis=0)] if profiles else None


def _trace(arm: ArmResult, mean: list[float]) -> go.Scatter:
    return go.Scatter(
        x=list(range(1, len(mean))),
        y=[round(value, 5) for value in mean[1:]],
        mode="lines+markers",
        line={"color": arm.colour, "width": 2, "dash": arm.dash},
        marker={"color": arm.colour, "size": 6, "symbol": arm.symbol},
        hovertext=[safe(arm.name)] * (len(mean) - 1),
        hovertemplate="%{hovertext}<br>block %{x}: λ = %{y:.3f}<extra></extra>",
        name=arm.name,
    )
