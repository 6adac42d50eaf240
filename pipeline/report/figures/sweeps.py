"""Figure: accuracy over each searched dimension on validation (gamma for edits, the coefficient for merges)."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import SearchedPoint, shared_points
from pipeline.report.figures.figure import Figure, Panel, panel, safe, translucent
from pipeline.report.tables.table import Table, TableCell, Units
from pipeline.report.tables.verdict import ROLE_WORDS
from search.intervals import Interval


@dataclass(frozen=True, slots=True)
class Line:
    """One arm over one dimension for one role, by rising value: (value, point, mean over places)."""

    arm: ArmResult
    dimension: str
    role: str
    steps: Sequence[tuple[float, SearchedPoint, Interval]]

    @property
    def word(self) -> str:
        """What is on the y axis."""
        return ROLE_WORDS[self.arm.kind, self.role]


def sweeps(measure: Measure) -> list[Figure]:
    """One figure a bench, a panel for each dimension and role; none where no arm searched a single dimension."""
    titles = {
        "edit": "Edited experts: accuracy over the coefficient",
        "merge": "Merges: accuracy over the coefficient",
    }
    units = Units(measure.run.percent)
    found = [(bench, _lines(measure, bench)) for bench in measure.benches]
    return [_figure(bench.titled(titles[bench.kind]), lines, units) for bench, lines in found if lines]


def _lines(measure: Measure, bench: ComparableArms) -> list[Line]:
    lines = []
    for arm in (a for a in bench.arms if a.kind == bench.kind):
        placed = [(d, p) for p in shared_points(arm) if (d := p.dimension) is not None]
        placed.sort(key=lambda pair: pair[0][1])
        if len(placed) < 2:
            continue
        for role in bench.roles:
            means = [(d[1], p, measure.mean(p.pick, bench.over(role), "val")) for d, p in placed]
            steps = [(value, point, mean) for value, point, mean in means if mean is not None]
            lines += [Line(arm, placed[0][0][0], role, steps)] if steps else []
    return lines


def _figure(title: str, lines: Sequence[Line], units: Units) -> Figure:
    panels: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        panels.setdefault((line.dimension, line.role), []).append(line)
    note = (
        "Validation split; rings mark what was chosen (by at least one expert). The shade is a 95% interval, drawn "
        "for LiNeS arms where there are any; the others' are as wide, and in the numbers. Alpha is λ at the first "
        "block of a LiNeS arm, and λ everywhere in a constant one."
    )
    table = _table(title, lines, units)
    arms = {line.arm.name: line.arm for line in lines}
    return Figure(title, note, [_panel(p, units) for p in panels.values()], list(arms.values()), table)


def _panel(lines: Sequence[Line], units: Units) -> Panel:
    word = lines[0].word
    what = word if "accuracy" in word else f"{word} accuracy"
    shaded = [line for line in lines if line.arm.role == "lines"] or lines
    traces = [*(ribbon(line, units) for line in shaded), *(curve(line, units) for line in lines)]
    return panel(f"{what} over {lines[0].dimension}", traces, lines[0].dimension, f"{what}{units.suffix}")


def ribbon(line: Line, units: Units) -> go.Scatter:
    """The 95% interval along a line, as a shade."""
    x = [value for value, _, _ in line.steps]
    low, high = units.axes(i.low for _, _, i in line.steps), units.axes(i.high for _, _, i in line.steps)
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=translucent(line.arm.colour, 0.11),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=line.arm.name,
    )


def curve(line: Line, units: Units) -> go.Scatter:
    """The line itself; rings mark what was chosen."""
    arm, chosen = line.arm, [point.chosen for _, point, _ in line.steps]
    return go.Scatter(
        x=[value for value, _, _ in line.steps],
        y=units.axes(interval.value for _, _, interval in line.steps),
        mode="lines+markers",
        line={"color": arm.colour, "width": 2, "dash": arm.dash},
        marker={
            "color": arm.colour,
            "size": [13 if c else 5 for c in chosen],
            "symbol": ["circle-open" if c else arm.symbol for c in chosen],
            "line": {"width": [2.4 if c else 0 for c in chosen]},
        },
        hovertext=[safe(arm.name)] * len(line.steps),
        hovertemplate="%{hovertext}<br>%{x:.3g}: %{y:.4g}<extra></extra>",
        name=arm.name,
    )


def _table(title: str, lines: Sequence[Line], units: Units) -> Table:
    """One row for each arm and value, one column for each role."""
    words = list(dict.fromkeys(line.word for line in lines))
    arms = {line.arm.name: line.arm for line in lines}
    found: dict[tuple[str, str, float], dict[str, Interval]] = {}
    for line in lines:
        for value, _, interval in line.steps:
            found.setdefault((line.arm.name, line.dimension, value), {})[line.word] = interval
    rows = [
        (
            TableCell(name, tone="lead", colour=arms[name].colour),
            TableCell(dimension),
            TableCell(f"{value:.4g}"),
            *(units.mean(means.get(word)) for word in words),
        )
        for (name, dimension, value), means in found.items()
    ]
    return Table(title, "Validation split.", ("arm", "dimension", "value", *words), tuple(rows))
