"""What a figure is, and how plotly draws it the same way everywhere: quiet axes, one colour for each arm."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.tables.table import Table, Units
from search.intervals import Interval

#: The height of one of many small panels, in pixels.
SMALL_HEIGHT = 190
#: The tooltip of a mark in a panel of target against control.
HOVER = "%{hovertext}<br>control %{x:.4g}, target %{y:.4g}<extra></extra>"


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: over the axes.
        figure: plotly's.
        least_width: in pixels; on a narrower screen the panel scrolls sideways.
    """

    title: str
    figure: go.Figure
    least_width: int = 0

    @property
    def json(self) -> str:
        """The figure for plotly.js; plotly escapes <, > and /, so that it is safe inside a script element."""
        return str(self.figure.to_json())


@dataclass(frozen=True)
class Figure:
    """Panels that share a legend.

    Attributes:
        title: what is shown.
        note: how to read it.
        panels: side by side if there is space.
        legend: the arms that occur.
        table: the numbers, shown instead of the picture in Markdown; None if another table of the report has them.
        folded: shown only when opened.
        wide: each panel needs the page's whole width.
        small: of small multiples, which have equal axes: the least width of a panel in pixels; else 0.
    """

    title: str
    note: str
    panels: Sequence[Panel]
    legend: Sequence[ArmResult]
    table: Table | None = None
    folded: bool = False
    wide: bool = False
    small: int = 0


def panel(title: str, traces: Sequence[object], x: str, y: str, **layout: object) -> Panel:
    """Return axes with titles `x` and `y`; the page sets the colours of text and grid, since it knows light from dark.

    Args:
        title: over the axes.
        traces: plotly traces.
        x: title of the axis.
        y: title of the axis.
        **layout: more of plotly's layout.
    """
    figure = go.Figure(data=list(traces))
    figure.update_layout(
        template="none",
        showlegend=False,
        height=340,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        xaxis=_axis(x),
        yaxis=_axis(y),
    )
    figure.update_layout(**layout)
    return Panel(title, figure)


def _axis(title: str) -> dict[str, object]:
    return {"automargin": True, "zeroline": False} | ({"title": {"text": safe(title)}} if title else {})


@dataclass(frozen=True, slots=True)
class MarkStyle:
    """How the marks of an arm are drawn.

    Attributes:
        size: in pixels.
        rings: which marks are open rings instead, for choices and beginnings; none if empty.
        ring: size of a ring.
        joined: width of the line that joins the marks; 0 for none.
    """

    size: int = 8
    rings: Sequence[bool] = ()
    ring: int = 14
    joined: float = 0


def marks(
    arm: ArmResult, x: Iterable[Any], y: Iterable[Any], hover: Iterable[str], template: str, style: MarkStyle
) -> go.Scatter:
    """Return the points of an arm in its colour and symbol.

    Args:
        arm: whose points they are.
        x: in the unit of the axis.
        y: in the unit of the axis.
        hover: the name of each point, as plain text, in lines.
        template: plotly's tooltip, in which %{hovertext} is the name.
        style: size, rings and line.
    """
    marker: dict[str, object] = {"color": arm.colour, "size": style.size, "symbol": arm.symbol}
    if any(style.rings):
        marker["size"] = [style.ring if ring else style.size for ring in style.rings]
        marker["symbol"] = ["circle-open" if ring else arm.symbol for ring in style.rings]
        marker["line"] = {"width": [2.4 if ring else 0 for ring in style.rings]}
    line = {"color": arm.colour, "width": style.joined, "dash": arm.dash} if style.joined else None
    return go.Scatter(
        x=list(x),
        y=list(y),
        mode="lines+markers" if style.joined else "markers",
        marker=marker,
        line=line,
        hovertext=["<br>".join(map(safe, text.split("\n"))) for text in hover],
        hovertemplate=template,
        name=arm.name,
    )


def shade(arm: ArmResult, x: Sequence[float], y: Sequence[float], opacity: float) -> go.Scatter:
    """Return a polygon in the arm's colour, for intervals and for the band of a front."""
    red, green, blue = (int(arm.colour[i : i + 2], 16) for i in (1, 3, 5))
    return go.Scatter(
        x=x,
        y=y,
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},{opacity})",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=arm.name,
    )


def error_bars(intervals: Iterable[Interval], units: Units, **style: object) -> dict[str, object]:
    """Return plotly's error bars for intervals."""
    found = list(intervals)
    return {
        "array": [units.axis(i.high - i.value) for i in found],
        "arrayminus": [units.axis(i.value - i.low) for i in found],
        **style,
    }


def safe(text: str) -> str:
    """Return text as plotly must get it to show it literally: it reads some HTML tags in any text."""
    return html.escape(text, quote=False)
