"""The history of a metric as one self-contained HTML page, and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from pipeline.regress.history import MetricHistory, RunChanges, history_table, run_changes, trend_table
from pipeline.report.data.arms import ArmResult, legend_arm
from pipeline.report.figures.figure import Figure, MarkStyle, error_bars, marks, panel
from pipeline.report.rendering import render
from pipeline.report.tables.table import Table
from tasks.files.atomic import write_whole


@dataclass(frozen=True)
class HistoryPage:
    """The content of the page; `changes` begin with the last run."""

    title: str
    figure: Figure
    trend: Table
    table: Table
    changes: Sequence[RunChanges]


def write_history(history: MetricHistory, out: Path) -> list[Path]:
    """Write the page, and the same content as Markdown next to it; return both paths."""
    names = list(dict.fromkeys(run.about["name"] for run in history.runs))
    table, changes = history_table(history, changes_too=False), run_changes(history)[::-1]
    page = HistoryPage(", ".join(names), _figure(history), trend_table(history), table, changes)
    out.parent.mkdir(parents=True, exist_ok=True)
    html = write_whole(out, render.html("history.html.j2", page=page))
    return [html, write_whole(out.with_suffix(".md"), render.markdown("history.md.j2", page=page))]


def _figure(history: MetricHistory) -> Figure:
    legend = [legend_arm(name, i) for i, name in enumerate(history.lines)]
    traces = [_trace(history, arm) for arm in legend]
    shapes = [_mark(time.isoformat()) for time, changes in zip(history.times, history.changed, strict=True) if changes]
    axis = {"title": {"text": "run, UTC"}, "automargin": True, "zeroline": False, "type": "date"}
    title = f"{history.metric}{history.units.suffix}"
    drawn = panel("", traces, "", title, height=420, shapes=shapes, xaxis=axis)
    note = "Means on test with 95% intervals. A dotted line marks a change since the previous run; its points name it."
    return Figure(f"{history.metric} over time", note, [drawn], legend, wide=True)


def _trace(history: MetricHistory, arm: ArmResult) -> go.Scatter:
    units, intervals = history.units, history.lines[arm.name]
    points = [(i, interval) for i, interval in enumerate(intervals) if interval is not None]
    times, hover = [history.times[i].isoformat() for i, _ in points], [_hover(history, arm.name, i) for i, _ in points]
    values = units.axes(interval.value for _, interval in points)
    trace = marks(arm, times, values, hover, "%{hovertext}<br>%{y}<extra></extra>", MarkStyle(joined=2))
    return trace.update(error_y=error_bars((interval for _, interval in points), units, thickness=1, width=3))


def _hover(history: MetricHistory, arm: str, i: int) -> str:
    return "\n".join([f"{history.times[i]:%Y-%m-%d %H:%M}, {arm}", *history.changed[i]])


def _mark(time: str) -> dict[str, object]:
    line = {"color": "#8A8F98", "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": time, "x1": time, "y0": 0, "y1": 1, "line": line}
