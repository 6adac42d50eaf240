"""What a figure is, and how plotly draws it the same way everywhere: quiet axes, one colour for each arm."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.tables.table import Table

#: What the pointer shows over a mark of a target-against-control panel.
HOVER = "%{hovertext}<br>control %{x:.4g}, target %{y:.4g}<extra></extra>"


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    figure: go.Figure

    @property
    def json(self) -> str:
        """For plotly.js; plotly escapes <, > and /, so that it can stand inside a script element."""
        return str(self.figure.to_json())


@dataclass(frozen=True)
class Figure:
    """Panels that share a legend.

    Attributes:
        title: what is shown.
        note: how to read it.
        panels: side by side where there is room.
        legend: the arms that occur.
        table: the numbers behind it, shown in place of the picture where there are no pictures; None if another
            table of the report has them already.
        folded: shown only when opened.
        wide: each panel needs the page's whole width.
    """

    title: str
    note: str
    panels: Sequence[Panel]
    legend: Sequence[ArmResult]
    table: Table | None = None
    folded: bool = False
    wide: bool = False


def panel(title: str, traces: Sequence[object], x: str, y: str, **layout: object) -> Panel:
    """Axes with titles `x` and `y`; colours of text and grid are set by the page, which knows light from dark."""
    figure = go.Figure(data=list(traces))
    figure.update_layout(
        template="none",
        showlegend=False,
        height=340,
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        xaxis={"title": {"text": safe(x)}, "automargin": True, "zeroline": False},
        yaxis={"title": {"text": safe(y)}, "automargin": True, "zeroline": False},
    )
    figure.update_layout(**layout)
    return Panel(title, figure)


def safe(text: str) -> str:
    """Names are shown as they are: plotly reads some HTML tags in any text."""
    return html.escape(text, quote=False)


def translucent(colour: str, opacity: float) -> str:
    """A hexadecimal colour as rgba()."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
