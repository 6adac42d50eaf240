"""Figure: accuracy over each searched dimension on validation (gamma for edits, the coefficient for merges)."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult, distinct
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import SearchedPoint, shared_points
from pipeline.report.data.run import BITS, Run
from pipeline.report.figures.figure import Figure, MarkStyle, Panel, marks, panel, shade
from pipeline.report.tables.table import Table, TableCell, Units, lead, role_units
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
        """The title of the y axis."""
        return ROLE_WORDS[self.arm.kind, self.role]


def sweeps(measure: Measure) -> list[Figure]:
    """Return one figure a bench, a panel for each dimension and role; none if no arm searched a single dimension."""
    titles = {
        "edit": "Edited experts: accuracy over the coefficient",
        "merge": "Merges: accuracy over the coefficient",
    }
    found = [(bench, _lines(measure, bench)) for bench in measure.benches]
    return [_figure(bench.titled(titles[bench.kind]), lines, measure.run) for bench, lines in found if lines]


def _lines(measure: Measure, bench: ComparableArms) -> list[Line]:
    lines = []
    placed_of = {arm.name: _placed(arm) for arm in bench.arms if arm.kind == bench.kind}
    for arm in distinct(a for a in bench.arms if len(placed_of.get(a.name, ())) > 1):
        placed = placed_of[arm.name]
        for role in bench.roles:
            means = [(d[1], p, measure.mean(p.pick, bench.over(role), "val")) for d, p in placed]
            steps = [(value, point, mean) for value, point, mean in means if mean is not None]
            lines += [Line(arm, placed[0][0][0], role, steps)] if steps else []
    return lines


def _placed(arm: ArmResult) -> list[tuple[tuple[str, float], SearchedPoint]]:
    """Return the dimension and value of each point of an arm, by rising value."""
    placed = [(d, p) for p in shared_points(arm) if (d := p.dimension) is not None]
    return sorted(placed, key=lambda pair: pair[0][1])


def _figure(title: str, lines: Sequence[Line], run: Run) -> Figure:
    panels: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        panels.setdefault((line.dimension, line.role), []).append(line)
    note = (
        "Validation split; rings mark what was chosen (for at least one expert). The shade is a 95% interval, drawn "
        "for LiNeS arms if there are any; those of the others are as wide, and in the table of numbers. Alpha is λ at "
        "the first block of a LiNeS arm, and λ everywhere in a constant one."
    )
    table = _table(title, lines, run)
    arms = {line.arm.name: line.arm for line in lines}
    return Figure(
        title, note, [_panel(p, role_units(run, p[0].role)) for p in panels.values()], list(arms.values()), table
    )


def _panel(lines: Sequence[Line], units: Units) -> Panel:
    word = lines[0].word
    what = word if "accuracy" in word or word.endswith(BITS) else f"{word} accuracy"
    shaded = [line for line in lines if line.arm.role == "lines"] or lines
    traces = [*(ribbon(line, units) for line in shaded), *(curve(line, units) for line in lines)]
    return panel(f"{what} over {lines[0].dimension}", traces, lines[0].dimension, f"{what}{units.suffix}")


def ribbon(line: Line, units: Units) -> go.Scatter:
    """Return the 95% interval along a line, as a shade."""
    x = [value for value, _, _ in line.steps]
    low, high = units.axes(i.low for _, _, i in line.steps), units.axes(i.high for _, _, i in line.steps)
    return shade(line.arm, [*x, *reversed(x)], [*high, *reversed(low)], 0.11)


def curve(line: Line, units: Units) -> go.Scatter:
    """Return the line itself; rings mark what was chosen."""
    x, y = [value for value, _, _ in line.steps], units.axes(interval.value for _, _, interval in line.steps)
    style = MarkStyle(5, [point.chosen for _, point, _ in line.steps], 13, joined=2)
    hover = [line.arm.name] * len(line.steps)
    return marks(line.arm, x, y, hover, "%{hovertext}<br>%{x:.3g}: %{y:.4g}<extra></extra>", style)


def _table(title: str, lines: Sequence[Line], run: Run) -> Table:
    """One row for each arm and value, one column for each role."""
    words = list(dict.fromkeys(line.word for line in lines))
    arms = {line.arm.name: line.arm for line in lines}
    found: dict[tuple[str, str, float], dict[str, Interval]] = {}
    for line in lines:
        for value, _, interval in line.steps:
            found.setdefault((line.arm.name, line.dimension, value), {})[line.word] = interval
    rows = [
        (
            lead(arms[name]),
            TableCell(dimension),
            TableCell(f"{value:.4g}"),
            *(role_units(run, word).mean(means.get(word)) for word in words),
        )
        for (name, dimension, value), means in found.items()
    ]
    return Table(title, "Validation split.", ("arm", "dimension", "value", *words), tuple(rows))
