"""Exhibit: accuracy over two searched dimensions, with a box around the best on validation."""

from collections.abc import Mapping

import plotly.graph_objects as go

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import SearchedPoint, shared_points
from pipeline.report.exhibits.scope import WORDS, Scope, caption, shown_split, subjects
from pipeline.report.figures.figure import Figure, Panel, panel, safe
from pipeline.report.tables.results import split_word
from pipeline.report.tables.table import NONE, Table, TableCell, Units, lead
from pipeline.spec.exhibits import HeatmapExhibit

CellPosition = tuple[float, float]
#: Most cells in which numbers are readable, their colour, and colours of cells on which it has a contrast of 5 or more.
WRITTEN, INK, PALE = 150, "#1C2126", ((0.0, "#F3F7FB"), (1.0, "#4F97D0"))


def figure(title: str, exhibit: HeatmapExhibit, measure: Measure) -> Figure:
    """Return one panel an arm."""
    arms = subjects(measure, exhibit.arms)
    split = shown_split(measure, arms, exhibit.split)
    grids = [(arm, grid) for arm in arms if (grid := _grid(measure, exhibit, arm, split))]
    boxes = {arm.name: _best(_grid(measure, exhibit, arm, "val")) for arm, _ in grids}
    units = Units(measure.run.percent)
    panels = [_panel(exhibit, arm, grid, boxes[arm.name], units) for arm, grid in grids]
    how = f"{split_word(split)}, {WORDS[exhibit.metric]}; the box is the best on validation."
    rows = tuple(row for arm, grid in grids for row in _rows(arm, grid, boxes[arm.name], units))
    table = Table(title, "", ("arm", exhibit.y, exhibit.x, WORDS[exhibit.metric], "best on validation"), rows)
    return Figure(title, caption(exhibit.note, how), panels, [], table)


def _grid(measure: Measure, exhibit: HeatmapExhibit, arm: ArmResult, split: str) -> dict[CellPosition, float]:
    """(x, y) -> mean accuracy, for the points that were scored on the split."""
    scope = Scope.of(measure, [arm])
    found = [(point, scope.average(arm, exhibit.metric, split, point.pick)) for point in shared_points(arm)]
    return {_where(point, exhibit): average.interval.value for point, average in found if average}


def _where(point: SearchedPoint, exhibit: HeatmapExhibit) -> CellPosition:
    x, y = point.values[exhibit.x], point.values[exhibit.y]
    assert isinstance(x, int | float) and isinstance(y, int | float), "dimensions of scaling and methods are numbers"
    return float(x), float(y)


def _best(grid: Mapping[CellPosition, float]) -> CellPosition | None:
    """The best cell; the first of equals, as in the search."""
    return max(grid, key=lambda where: grid[where], default=None)


def _panel(
    exhibit: HeatmapExhibit, arm: ArmResult, grid: Mapping[CellPosition, float], box: CellPosition | None, units: Units
) -> Panel:
    xs, ys = (sorted({where[axis] for where in grid}) for axis in (0, 1))
    values = [[units.axis(grid[x, y]) if (x, y) in grid else None for x in xs] for y in ys]
    written = len(xs) * len(ys) <= WRITTEN
    trace = go.Heatmap(
        x=[f"{x:.4g}" for x in xs],
        y=[f"{y:.4g}" for y in ys],
        z=values,
        colorscale=PALE if written else "Cividis",
        colorbar={"thickness": 12, "outlinewidth": 0},
        texttemplate="%{z:.3g}" if written else None,
        textfont={"color": INK},
        hovertext=[[safe(arm.name)] * len(xs)] * len(ys),
        hovertemplate=f"%{{hovertext}}<br>{exhibit.x} %{{x}}, {exhibit.y} %{{y}}: %{{z:.4g}}<extra></extra>",
        name=arm.name,
    )
    shapes = [_box(xs.index(box[0]), ys.index(box[1]))] if box in grid and box is not None else []
    layout = {"xaxis_type": "category", "yaxis_type": "category", "shapes": shapes, "height": 420}
    return panel(arm.name, [trace], exhibit.x, exhibit.y, **layout)


def _box(column: int, row: int) -> dict[str, object]:
    ends = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return {"type": "rect", "line": {"color": "#E03131", "width": 3}, **ends}


def _rows(
    arm: ArmResult, grid: Mapping[CellPosition, float], box: CellPosition | None, units: Units
) -> list[tuple[TableCell, ...]]:
    return [
        (
            lead(arm),
            TableCell(f"{y:.4g}"),
            TableCell(f"{x:.4g}"),
            TableCell(units.number(value)),
            TableCell("yes" if (x, y) == box else NONE),
        )
        for (x, y), value in grid.items()
    ]
