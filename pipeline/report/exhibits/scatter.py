"""Exhibit: normalised target accuracy against normalised control accuracy, one dot for each expert of each arm."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.exhibits.labels import Spot, placed
from pipeline.report.exhibits.scope import WORDS, Scope, caption, subjects
from pipeline.report.figures.figure import HOVER, Figure, MarkStyle, Panel, marks, panel, safe
from pipeline.report.tables.results import split_word
from pipeline.report.tables.table import Table, TableCell, Units, lead
from pipeline.spec.exhibits import ScatterExhibit
from search.intervals import Interval

ROLES = ("control", "target")
#: Names next to dots cover each other in less, in pixels.
LEAST_WIDTH = 760
Ranges = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Dot:
    """One expert of one arm: normalised (control, target); the mean over the experts has the name ""."""

    expert: str
    control: Interval
    target: Interval


def figure(title: str, exhibit: ScatterExhibit, measure: Measure) -> Figure:
    """Return one panel, or one an arm if dots are labelled."""
    arms, units = subjects(measure, exhibit.arms), Units(measure.run.percent)
    found = [(arm, dots) for arm in arms if (dots := _dots(measure, Scope.of(measure, arms), arm, exhibit.split))]
    ranges = _ranges([dot for _, dots in found for dot in dots], units)
    if exhibit.labels:
        named = [_panel(arm.name, [_named(arm, dots, ranges, units)], ranges, units) for arm, dots in found]
        panels = [replace(panel, least_width=LEAST_WIDTH) for panel in named]
    else:
        traces = [trace for arm, dots in found for trace in (_plain(arm, dots, units), _mean(arm, dots, units))]
        panels = [_panel("", traces, ranges, units)] if traces else []
    means = "" if exhibit.labels else " Large marks: the mean over the experts."
    dots_note = f"{split_word(exhibit.split)}. A dot is one expert: its own task against the mean of the others.{means}"
    rows = tuple(_row(arm, dot, units) for arm, dots in found for dot in dots)
    table = Table(title, "", ("arm", "expert", *(WORDS[f"{role}_normalised"] for role in ROLES)), rows)
    note = caption(exhibit.note, dots_note)
    return Figure(title, note, panels, arms, table, wide=exhibit.labels)


def _dots(measure: Measure, scope: Scope, arm: ArmResult, split: str) -> list[Dot]:
    """The mean over all experts, then each expert that was scored everywhere."""
    places = {role: scope.places(arm, role, normalised=True) for role in ROLES}
    found = []
    for expert in ("", *dict.fromkeys(place.group for place in places["target"])):
        means = []
        for role in ROLES:
            here: Sequence[GroupTask] = [p for p in places[role] if p.group == expert] if expert else places[role]
            means.append(measure.normalised(arm.chosen, here, split, role == "target"))
        if means[0] is not None and means[1] is not None:
            found.append(Dot(expert, means[0], means[1]))
    return found


def _ranges(dots: Sequence[Dot], units: Units) -> Ranges:
    """The same axes for every panel, with a margin for marks and labels."""
    found = []
    for values in ([dot.control.value for dot in dots], [dot.target.value for dot in dots]):
        low, high = min(values, default=0.0), max(values, default=1.0)
        margin = 0.07 * (high - low) or 0.05
        found.append((units.axis(low - margin), units.axis(high + margin)))
    return found[0], found[1]


def _panel(title: str, traces: Sequence[object], ranges: Ranges, units: Units) -> Panel:
    one = units.axis(1.0)
    guide = {"type": "line", "layer": "below", "line": {"color": "#8A8F98", "width": 1, "dash": "dot"}}
    shapes = [
        guide | {"x0": one, "x1": one, "yref": "paper", "y0": 0, "y1": 1},
        guide | {"y0": one, "y1": one, "xref": "paper", "x0": 0, "x1": 1},
    ]
    x, y = (f"{WORDS[f'{role}_normalised']}{units.suffix}" for role in ROLES)
    layout = {"xaxis_range": ranges[0], "yaxis_range": ranges[1], "shapes": shapes, "height": 460}
    return panel(title, traces, x, y, **layout)


def _plain(arm: ArmResult, dots: Sequence[Dot], units: Units) -> go.Scatter:
    return _marks(arm, [dot for dot in dots if dot.expert], 8, 0.75, units)


def _mean(arm: ArmResult, dots: Sequence[Dot], units: Units) -> go.Scatter:
    mark = _marks(arm, [dot for dot in dots if not dot.expert], 16, 1.0, units)
    return mark.update(marker_line={"width": 2, "color": "#FFFFFF"})


def _named(arm: ArmResult, dots: Sequence[Dot], ranges: Ranges, units: Units) -> go.Scatter:
    experts = [dot for dot in dots if dot.expert]
    spots = [Spot(dot.expert, units.axis(dot.control.value), units.axis(dot.target.value)) for dot in experts]
    labelled = {
        "mode": "markers+text",
        "text": [safe(dot.expert) for dot in experts],
        "textposition": placed(spots, *ranges),
        "textfont": {"size": 11},
        "cliponaxis": False,
    }
    return _marks(arm, experts, 8, 0.9, units).update(labelled)


def _marks(arm: ArmResult, dots: Sequence[Dot], size: int, opacity: float, units: Units) -> go.Scatter:
    x, y = units.axes(dot.control.value for dot in dots), units.axes(dot.target.value for dot in dots)
    hover = [f"{arm.name} {dot.expert or 'mean'}" for dot in dots]
    return marks(arm, x, y, hover, HOVER, MarkStyle(size)).update(marker_opacity=opacity)


def _row(arm: ArmResult, dot: Dot, units: Units) -> tuple[TableCell, ...]:
    return (lead(arm), TableCell(dot.expert or "mean"), units.mean(dot.control), units.mean(dot.target))
