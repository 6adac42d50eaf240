"""Figure: target against control accuracy of every candidate on validation, with fronts and their confidence."""

import numpy as np
import plotly.graph_objects as go

from pipeline.report.data.clouds import Cloud, averaged_cloud
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import describe
from pipeline.report.data.run import CandidateRow
from pipeline.report.figures.figure import HOVER, Figure, MarkStyle, marks, panel, shade
from pipeline.report.tables.table import NONE, Table, TableCell, Units, counted, lead

#: Columns of a cloud of TRADE_OFF: control goes across.
_X, _Y = 1, 0


def tradeoff(measure: Measure) -> list[Figure]:
    """Return the figure averaged over experts and, folded, one panel for each expert; none without control tasks."""
    figures = []
    for bench in (b for b in measure.benches if b.kind == "edit" and b.over("target") and b.normalised_over("control")):
        # One expert's own panel would repeat the average.
        figures += [_averaged(measure, bench), *([_by_expert(measure, bench)] if len(bench.experts) > 1 else [])]
    return figures


def _is_normalised(bench: ComparableArms) -> bool:
    """Whether axes are normalised: controls that are all in bits per byte have no accuracy."""
    return not bench.over("control")


def _averaged(measure: Measure, bench: ComparableArms) -> Figure:
    units, title = Units(measure.run.percent), bench.titled("Target against control")
    axes = _axes(bench, units)
    clouds = [c for arm in bench.arms if (c := averaged_cloud(measure, bench, arm, _is_normalised(bench)))]
    # Shades first, so that none covers another arm's points; only LiNeS arms have one, or all would blend into grey.
    traces: list[object] = [_band(c, units) for c in clouds if c.arm.role == "lines" and len(c.labels) > 1]
    for cloud in clouds:
        traces += _arm_traces(cloud, units)
    traces += [_chosen(cloud, measure, bench, units) for cloud in clouds if len(cloud.labels) > 1]
    note = (
        f"Validation split, mean over {counted(len(bench.experts), 'expert')}. Each mark is a point of an arm's search "
        "space that was scored for every expert. The line is the non-dominated front, the ring the mean of what was "
        "chosen. The shade marks where a LiNeS front lies in 95% of the resamples of the images; the other fronts move "
        "with it, so differences are more certain than the shade suggests."
    )
    rows = tuple(row for cloud in clouds for row in _front_rows(cloud, units))
    table = Table(title, "The points of the lines.", ("arm", "point", "control", "target"), rows)
    return Figure(title, note, [panel("", traces, *axes, height=460)], [cloud.arm for cloud in clouds], table)


def _axes(bench: ComparableArms, units: Units) -> tuple[str, str]:
    what = "normalised" if _is_normalised(bench) else "accuracy"
    return f"control {what}{units.suffix}", f"target {what}{units.suffix}"


def _band(cloud: Cloud, units: Units) -> go.Scatter:
    outline_Q2 = cloud.outline(_X, _Y)
    return shade(cloud.arm, units.axes(outline_Q2[:, 0]), units.axes(outline_Q2[:, 1]), 0.13)


def _on_front(cloud: Cloud) -> list[int]:
    """Indices of the front's points, by rising control accuracy."""
    return [int(i) for i in np.argsort(cloud.xy_PM[:, _X]) if cloud.mask_P[i]]


def _arm_traces(cloud: Cloud, units: Units) -> list[object]:
    arm, xy_PM, front = cloud.arm, cloud.xy_PM, _on_front(cloud)
    line = go.Scatter(
        x=units.axes(xy_PM[front, _X]),
        y=units.axes(xy_PM[front, _Y]),
        mode="lines",
        line={"color": arm.colour, "width": 1.8, "shape": "vh", "dash": arm.dash},
        hoverinfo="skip",
        name=arm.name,
    )
    hover = [f"{arm.name} {label}" for label in cloud.labels]
    style = MarkStyle(13 if len(cloud.labels) == 1 else 8)
    points = marks(arm, units.axes(xy_PM[:, _X]), units.axes(xy_PM[:, _Y]), hover, HOVER, style)
    return [line, points] if len(front) > 1 else [points]


def _chosen(cloud: Cloud, measure: Measure, bench: ComparableArms, units: Units) -> go.Scatter:
    if _is_normalised(bench):
        control, target = bench.normalised_over("control"), bench.over("target")
        pairs = ((control, False), (target, True))
        means = [measure.normalised(cloud.arm.chosen, places, "val", own) for places, own in pairs]
    else:
        means = [measure.mean(cloud.arm.chosen, bench.over(role), "val") for role in ("control", "target")]
    x, y = (units.axes([mean.value] if mean else []) for mean in means)
    return marks(cloud.arm, x, y, [f"{cloud.arm.name}, as chosen"], HOVER, MarkStyle(rings=[True], ring=18))


def _by_expert(measure: Measure, bench: ComparableArms) -> Figure:
    """Every candidate as it was scored, even if each expert was searched at other points."""
    units, normalised = Units(measure.run.percent), _is_normalised(bench)
    arms = [a for a in bench.arms if a.kind == "edit"]
    panels = []
    for group in bench.experts:
        traces = []
        for arm in arms:
            scored = [(c, _position(measure, c, normalised)) for c in arm.candidates if c.group == group]
            own = [(c, xy) for c, xy in scored if xy is not None]
            style = MarkStyle(7, [c.chosen and len(own) > 1 for c, _ in own])
            hover = [f"{arm.name} {describe(c.point)}" for c, _ in own]
            x, y = (units.axes(xy[i] for _, xy in own) for i in (0, 1))
            traces.append(marks(arm, x, y, hover, HOVER, style))
        panels.append(panel(group, traces, *_axes(bench, units), height=320))
    note = "Validation split, every candidate of every arm; the ring is what was chosen for the expert."
    return Figure(bench.titled("Target against control, expert by expert"), note, panels, arms, folded=True)


def _position(measure: Measure, candidate: CandidateRow, normalised: bool) -> tuple[float, float] | None:
    """(control, target) on validation, each the mean over its tasks."""
    if candidate.failure:
        return None
    scores = [score for (_, split), score in measure.run.scored(candidate).items() if split == "val"]
    if normalised:
        found = [[s.normalised for s in scores if s.role == role and s.normalised] for role in ("control", "target")]
    else:
        found = [[s.value for s in scores if s.shown_role == role] for role in ("control", "target")]
    control, target = found
    return (float(np.mean(control)), float(np.mean(target))) if control and target else None


def _front_rows(cloud: Cloud, units: Units) -> list[tuple[TableCell, ...]]:
    return [
        (
            lead(cloud.arm),
            TableCell(cloud.labels[i] or NONE),
            *(TableCell(units.number(float(cloud.xy_PM[i, column]))) for column in (_X, _Y)),
        )
        for i in _on_front(cloud)
    ]
