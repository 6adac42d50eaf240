"""Figure: how far each model of an arena is behind the best."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from pipeline.report.data.arena import Ranking
from pipeline.report.data.arms import GREY, PALETTE
from pipeline.report.data.estimates import Measure
from pipeline.report.figures.figure import Figure, error_bars, panel, safe
from pipeline.report.tables.arena import what
from pipeline.report.tables.table import Units

#: Whether a model ties with the best -> its colour, and the name of the trace.
_TRACES = {True: (PALETTE[0], "ties with the best"), False: (GREY, "worse")}
#: Pixels of the axis and of each model.
_AXIS, _ROW = 70, 21


def arena_figures(measure: Measure, rankings: Sequence[Ranking]) -> list[Figure]:
    """Return one figure a ranking; its numbers are in the ranking's table."""
    return [_figure(measure, ranking) for ranking in rankings if len(ranking.arms) > 1]


def _figure(measure: Measure, ranking: Ranking) -> Figure:
    units = Units(True) if ranking.objectives else Units(measure.run.percent)
    names = [safe(arm.name) for arm in ranking.arms]
    traces = []
    for ties, (colour, word) in _TRACES.items():
        shown = [(arm, rank.behind) for arm, rank in zip(ranking.arms, ranking.ranks, strict=True) if rank.ties == ties]
        known = [(arm, i) for arm, i in shown if math.isfinite(i.high)]  # of too few samples there are no ends
        bars = error_bars([i for _, i in known], units, color=colour, thickness=1.4, width=3)
        symbols = ["diamond" if arm.role == "plain" else f"circle{'-open' * bool(arm.control_of)}" for arm, _ in known]
        traces.append(
            go.Scatter(
                x=units.axes(i.value for _, i in known),
                y=[safe(arm.name) for arm, _ in known],
                error_x=bars,
                mode="markers",
                marker={"color": colour, "size": 9, "symbol": symbols, "line": {"width": 1.6}},
                hovertemplate="%{y}: %{x:.3g}<extra></extra>",
                name=word,
            )
        )
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
    unit = f"hundredths of {what(ranking)}" if ranking.objectives else units.points.strip()
    axis = f"behind the best{unit and f' ({unit})'}"
    order = {"categoryorder": "array", "categoryarray": names, "autorange": "reversed", "automargin": True}
    drawn = panel("", traces, axis, "", height=_AXIS + _ROW * len(names), shapes=[zero], yaxis=order)
    note = (
        "Test split, with intervals that hold for all pairs of models at once (95%). Blue ties with the best, grey is "
        "worse. Diamonds have no profile over depth; open circles are controls."
    )
    return Figure(f"{ranking.title}: behind the best", note, [drawn], (), wide=True)
