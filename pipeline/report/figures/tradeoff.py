"""Figure: target against control accuracy of every candidate on validation, with fronts and their confidence."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.fronts import Front, read_front
from pipeline.report.data.points import describe, shared_points
from pipeline.report.data.run import CandidateRow
from pipeline.report.figures.figure import HOVER, Figure, Panel, panel, safe, translucent
from pipeline.report.tables.results import counted
from pipeline.report.tables.table import NONE, Table, TableCell, Units
from search.pareto import Array


def tradeoff(measure: Measure) -> list[Figure]:
    """The figure averaged over experts and, folded, one panel for each expert; none where nothing is a control."""
    figures = []
    for bench in (b for b in measure.benches if b.kind == "edit" and b.over("target") and b.over("control")):
        # One expert's own panel would be the average again.
        figures += [_averaged(measure, bench), *([_by_expert(measure, bench)] if len(bench.experts) > 1 else [])]
    return figures


def _averaged(measure: Measure, bench: ComparableArms) -> Figure:
    units, title = Units(measure.run.percent), bench.titled("Target against control")
    found = [(arm, front) for arm in bench.arms if (front := read_front(measure, bench, shared_points(arm)))]
    # Shades first, so that none covers another arm's points; of LiNeS arms only, since those of all arms are one grey.
    shaded = [(a, f) for a, f in found if a.role == "lines" and len(f.points) > 1]
    traces: list[object] = [_confidence(arm, front.outline(), units) for arm, front in shaded]
    for arm, front in found:
        traces += _arm_traces(arm, front, units)
    traces += [_chosen(arm, measure, bench, units) for arm, front in found if len(front.points) > 1]
    note = (
        f"Validation split, mean over {counted(len(bench.experts), 'expert')}; each mark is a point of an arm's space "
        "that was scored for every expert. The line is the non-dominated front, the ring the mean of what was chosen. "
        "The shade is where a LiNeS front runs in 95% of the resamples of the images; the other fronts move with it, "
        "so that differences are surer than the shade looks."
    )
    rows = tuple(row for arm, front in found for row in _front_rows(arm, front, units))
    table = Table(title, "The points of the lines.", ("arm", "point", "control", "target"), rows)
    return Figure(title, note, [_plot(traces, "", units, 460)], [arm for arm, _ in found], table)


def _plot(traces: Sequence[object], title: str, units: Units, height: int) -> Panel:
    return panel(title, traces, f"control accuracy{units.suffix}", f"target accuracy{units.suffix}", height=height)


def _confidence(arm: ArmResult, outline_Q2: Array, units: Units) -> go.Scatter:
    return go.Scatter(
        x=units.axes(outline_Q2[:, 0]),
        y=units.axes(outline_Q2[:, 1]),
        fill="toself",
        fillcolor=translucent(arm.colour, 0.13),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=arm.name,
    )


def _arm_traces(arm: ArmResult, front: Front, units: Units) -> list[object]:
    line = go.Scatter(
        x=units.axes(front.line[:, 0]),
        y=units.axes(front.line[:, 1]),
        mode="lines",
        line={"color": arm.colour, "width": 1.8, "shape": "vh", "dash": arm.dash},
        hoverinfo="skip",
        name=arm.name,
    )
    marks = go.Scatter(
        x=units.axes(front.xy_P2[:, 0]),
        y=units.axes(front.xy_P2[:, 1]),
        mode="markers",
        marker={"color": arm.colour, "size": 13 if len(front.points) == 1 else 8, "symbol": arm.symbol},
        hovertext=[safe(f"{arm.name} {point.label}") for point in front.points],
        hovertemplate=HOVER,
        name=arm.name,
    )
    return [line, marks] if front.mask_P.sum() > 1 else [marks]


def _chosen(arm: ArmResult, measure: Measure, bench: ComparableArms, units: Units) -> go.Scatter:
    means = [measure.mean(arm.chosen, bench.over(role), "val") for role in ("control", "target")]
    x, y = (units.axes([mean.value] if mean else []) for mean in means)
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"color": arm.colour, "size": 18, "symbol": "circle-open", "line": {"width": 2.4}},
        hovertext=[safe(f"{arm.name}, as chosen")],
        hovertemplate=HOVER,
        name=arm.name,
    )


def _by_expert(measure: Measure, bench: ComparableArms) -> Figure:
    """Every candidate as it was scored, also where each expert was searched at points of its own."""
    units = Units(measure.run.percent)
    arms = [a for a in bench.arms if a.kind == "edit"]
    panels = []
    for group in bench.experts:
        found = [(arm, [c for c in arm.candidates if c.group == group and not c.failure]) for arm in arms]
        panels.append(_plot([_expert_trace(measure, arm, cs, units) for arm, cs in found], group, units, 320))
    note = "Validation split, every candidate of every arm; the open mark is what was chosen for the expert."
    return Figure(bench.titled("Target against control, expert by expert"), note, panels, arms, folded=True)


def _expert_trace(measure: Measure, arm: ArmResult, candidates: Sequence[CandidateRow], units: Units) -> go.Scatter:
    placed = [(c, xy) for c in candidates if (xy := _position(measure, c)) is not None]
    chosen = [c.chosen and len(placed) > 1 for c, _ in placed]
    return go.Scatter(
        x=units.axes(xy[0] for _, xy in placed),
        y=units.axes(xy[1] for _, xy in placed),
        mode="markers",
        marker={
            "color": arm.colour,
            "size": [14 if c else 7 for c in chosen],
            "symbol": ["circle-open" if c else arm.symbol for c in chosen],
            "line": {"width": [2.4 if c else 0 for c in chosen]},
        },
        hovertext=[safe(f"{arm.name} {describe(c.point)}") for c, _ in placed],
        hovertemplate=HOVER,
        name=arm.name,
    )


def _position(measure: Measure, candidate: CandidateRow) -> tuple[float, float] | None:
    """(control, target) on validation, each the mean over its tasks."""
    scores = [score for (_, split), score in measure.run.scored(candidate).items() if split == "val"]
    control, target = ([s.value for s in scores if s.role == role] for role in ("control", "target"))
    return (float(np.mean(control)), float(np.mean(target))) if control and target else None


def _front_rows(arm: ArmResult, front: Front, units: Units) -> list[tuple[TableCell, ...]]:
    lead = TableCell(arm.name, tone="lead", colour=arm.colour)
    order = [int(i) for i in np.argsort(front.xy_P2[:, 0]) if front.mask_P[i]]
    return [
        (lead, TableCell(front.points[i].label or NONE), *(TableCell(units.number(float(v))) for v in front.xy_P2[i]))
        for i in order
    ]
