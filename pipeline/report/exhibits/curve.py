"""Exhibit: accuracy over the dimension that each arm searched; an arm that searched none is a level."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import SearchedPoint
from pipeline.report.exhibits.scope import WORDS, Scope, caption, ordered, shown_split, subjects
from pipeline.report.figures.figure import Figure, Panel, panel, safe
from pipeline.report.figures.sweeps import Line, curve, ribbon
from pipeline.report.tables.results import split_word
from pipeline.report.tables.table import NONE, Table, TableCell, Units, lead
from pipeline.spec.exhibits import CurveExhibit
from search.intervals import Interval


def figure(title: str, exhibit: CurveExhibit, measure: Measure) -> Figure:
    """Return one panel for each metric."""
    arms = subjects(measure, exhibit.arms)
    split = shown_split(measure, arms, exhibit.split)
    lines = {metric: _lines(measure, arms, metric, split) for metric in exhibit.metrics}
    panels = [_panel(measure, exhibit, metric, lines[metric]) for metric in exhibit.metrics if lines[metric]]
    rings = "Rings mark what validation chose (for at least one expert)." if any(lines.values()) else ""
    note = caption(exhibit.note, f"{split_word(split)}; {_shade_words(lines)}", rings)
    return Figure(title, note, panels, arms, _table(measure, title, lines))


def _lines(measure: Measure, arms: Sequence[ArmResult], metric: str, split: str) -> list[Line]:
    """One line an arm; an arm that searched nothing has a single step without a dimension."""
    scope = Scope.of(measure, arms)
    found = []
    for arm in arms:
        averages = [(point, scope.average(arm, metric, split, point.pick)) for point in ordered(arm)]
        steps = [(_value(point), point, average.interval) for point, average in averages if average]
        if steps:
            found.append(Line(arm, next(iter(steps[0][1].values), ""), metric, steps))
    return found


def _value(point: SearchedPoint) -> float:
    return point.dimension[1] if point.dimension else 0.0


def _shaded(curves: Sequence[Line]) -> Sequence[Line]:
    """LiNeS arms if there are any: the shades of all arms would blend into grey."""
    return [line for line in curves if line.arm.role == "lines"] or curves


def _shade_words(lines: Mapping[str, Sequence[Line]]) -> str:
    curves = [[line for line in drawn if line.dimension] for drawn in lines.values()]
    if all(len(_shaded(drawn)) == len(drawn) for drawn in curves):
        return "the shade is a 95% interval."
    return "the shade is a 95% interval, drawn for LiNeS arms only; those of the others are in the table of numbers."


def _panel(measure: Measure, exhibit: CurveExhibit, metric: str, lines: Sequence[Line]) -> Panel:
    units = Units(measure.run.percent)
    curves = [line for line in lines if line.dimension]
    ends = [value for line in curves for value, _, _ in line.steps] or [0.0, 1.0]
    traces: list[object] = [ribbon(line, units) for line in _shaded(curves)]
    traces += [_level(line, (min(ends), max(ends)), units) for line in lines if not line.dimension]
    traces += [curve(line, units) for line in curves]
    x = exhibit.x_title or " or ".join(dict.fromkeys(line.dimension for line in curves))
    return panel(WORDS[metric], traces, x, f"{WORDS[metric]}{units.suffix}")


def _level(line: Line, ends: tuple[float, float], units: Units) -> go.Scatter:
    """A horizontal line across the panel."""
    (_, _, interval), arm = line.steps[0], line.arm
    return go.Scatter(
        x=list(ends),
        y=[units.axis(interval.value)] * 2,
        mode="lines",
        line={"color": arm.colour, "width": 1.6, "dash": "dot"},
        hovertext=[safe(arm.name)] * 2,
        hovertemplate="%{hovertext}: %{y:.4g}<extra></extra>",
        name=arm.name,
    )


def _table(measure: Measure, title: str, lines: Mapping[str, Sequence[Line]]) -> Table:
    units = Units(measure.run.percent)
    found: dict[tuple[str, str], dict[str, Interval]] = {}
    arms = {line.arm.name: line.arm for drawn in lines.values() for line in drawn}
    for metric, drawn in lines.items():
        for line in drawn:
            for value, _, interval in line.steps:
                place = f"{line.dimension} = {value:.4g}" if line.dimension else NONE
                found.setdefault((line.arm.name, place), {})[metric] = interval
    rows = [
        (
            lead(arms[name]),
            TableCell(place),
            *(units.mean(means.get(m)) for m in lines),
        )
        for (name, place), means in found.items()
    ]
    return Table(title, "", ("arm", "at", *(WORDS[metric] for metric in lines)), tuple(rows))
