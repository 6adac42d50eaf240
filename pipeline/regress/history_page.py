"""The history as one self-contained HTML page, and as Markdown."""

from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from pipeline.regress.history import MetricHistory, history_table, trend_table
from pipeline.report.data.arms import PALETTE, SYMBOLS, ArmResult
from pipeline.report.figures.figure import Figure, panel, safe
from pipeline.report.rendering import render
from pipeline.report.tables.table import Table
from tasks.files.atomic import write_whole


@dataclass(frozen=True)
class HistoryPage:
    """What the templates show."""

    title: str
    figure: Figure
    trend: Table
    table: Table


def write_history(history: MetricHistory, out: Path) -> list[Path]:
    """Write the page, and beside it the same as Markdown."""
    names = list(dict.fromkeys(run.about["name"] for run in history.runs))
    page = HistoryPage(", ".join(names), _figure(history), trend_table(history), history_table(history))
    out.parent.mkdir(parents=True, exist_ok=True)
    html = write_whole(out, render.html("history.html.j2", page=page))
    return [html, write_whole(out.with_suffix(".md"), render.markdown("history.md.j2", page=page))]


def _figure(history: MetricHistory) -> Figure:
    traces, legend = [], []
    for i, arm in enumerate(history.lines):
        colour, symbol = PALETTE[i % len(PALETTE)], SYMBOLS[i % len(SYMBOLS)]
        traces.append(_trace(history, arm, colour, symbol))
        legend.append(ArmResult(arm, "", "", "", (), (), colour, symbol))
    shapes = [_mark(time.isoformat()) for time, told in zip(history.times, history.changed, strict=True) if told]
    axis = {"title": {"text": "run, UTC"}, "automargin": True, "zeroline": False, "type": "date"}
    title = f"{history.metric}{history.units.suffix}"
    drawn = panel("", traces, "", title, height=420, shapes=shapes, xaxis=axis)
    note = (
        "Means on test with 95% intervals. A dotted line: something changed since the run before; its points say what."
    )
    return Figure(f"{history.metric} over time", note, [drawn], legend, wide=True)


def _trace(history: MetricHistory, arm: str, colour: str, symbol: str) -> go.Scatter:
    unit, points = history.units, []
    for i, interval in enumerate(history.lines[arm]):
        if interval is not None:
            points.append((i, interval))
    values = [unit.axis(interval.value) for _, interval in points]
    return go.Scatter(
        name=arm,
        x=[history.times[i].isoformat() for i, _ in points],
        y=values,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"symbol": symbol, "size": 8, "color": colour},
        error_y={
            "array": [unit.axis(p.high) - v for (_, p), v in zip(points, values, strict=True)],
            "arrayminus": [v - unit.axis(p.low) for (_, p), v in zip(points, values, strict=True)],
            "thickness": 1,
            "width": 3,
        },
        hovertext=[_hover(history, arm, i) for i, _ in points],
        hovertemplate="%{hovertext}<br>%{y}<extra></extra>",
    )


def _hover(history: MetricHistory, arm: str, i: int) -> str:
    told = [f"{history.times[i]:%Y-%m-%d %H:%M}, {arm}", *history.changed[i]]
    return "<br>".join(safe(line) for line in told)


def _mark(time: str) -> dict[str, object]:
    line = {"color": "#8A8F98", "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": time, "x1": time, "y0": 0, "y1": 1, "line": line}
