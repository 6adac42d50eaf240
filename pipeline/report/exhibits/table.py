"""Exhibit: a table of the chosen candidates with the rows of the paper's table, and the paper's numbers if given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pipeline.report.data.arms import ArmResult, distinct
from pipeline.report.data.estimates import Average, Measure
from pipeline.report.data.run import CandidateRow
from pipeline.report.exhibits.scope import Scope, caption
from pipeline.report.tables.chosen import alpha_origin
from pipeline.report.tables.results import INTERVALS, split_word
from pipeline.report.tables.table import NONE, Table, TableCell, Units, lead
from pipeline.spec.exhibits import ACCURACIES, TableExhibit

EMPTY = TableCell("")
#: A number of the chosen candidates -> how to read it from one candidate; None if it has none.
_READ: dict[str, Callable[[CandidateRow], float | None]] = {
    "alpha": lambda c: c.alpha,
    "beta": lambda c: float(c.recipe.beta),
    "objective": lambda c: sum(c.objectives) if c.objectives else None,
    "seconds": lambda c: c.note.get("seconds"),
    "peak_gb": lambda c: c.note["peak_bytes"] / 1e9 if "peak_bytes" in c.note else None,
}
#: How to combine the numbers of an edit's experts, if not by their mean.
_COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"seconds": sum, "peak_gb": max}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        scope: of the arms in it.
        split: test or val.
        cells: row -> (arm, metric), for the rows whose arm was run.
    """

    scope: Scope
    split: str
    cells: Mapping[str, tuple[ArmResult, str]]

    def average(self, row: str) -> Average | None:
        """Return the mean in a row's cell; None if it is not an accuracy, or was not scored."""
        if row not in self.cells:
            return None
        arm, metric = self.cells[row]
        if metric == "best":
            return _best(self.scope, arm, self.split)
        return self.scope.average(arm, metric, self.split) if metric in ACCURACIES else None


def table(title: str, exhibit: TableExhibit, measure: Measure) -> Table:
    """Return the table, with an interval for every mean and a paired interval for every difference."""
    units = Units(measure.run.percent)
    columns: list[tuple[str, list[TableCell]]] = []
    for i, name in enumerate(exhibit.columns):
        columns.append((name, _entries(_column(exhibit, i, measure), exhibit, i, units)))
        numbers = [exhibit.paper[row][i] if row in exhibit.paper else None for row in exhibit.rows]
        if any(number is not None for number in numbers):
            columns.append((f"{name}, paper", _printed(numbers)))
    leads = _leads(exhibit, measure)
    rows = zip(leads, *(entries for _, entries in columns), strict=True)
    return Table(title, _note(exhibit, units), ("model", *(name for name, _ in columns)), tuple(rows))


def _printed(numbers: Sequence[float | None]) -> list[TableCell]:
    """The paper's numbers of one column, with the decimals of the longest: 48.0 above 90.3."""
    digits = max(len(f"{number:g}".partition(".")[2]) for number in numbers if number is not None)
    return [EMPTY if number is None else TableCell(f"{number:.{digits}f}") for number in numbers]


def _column(exhibit: TableExhibit, i: int, measure: Measure) -> Column:
    arms = {arm.name: arm for arm in measure.arms}
    cells = {row: cell for row, found in exhibit.rows.items() if (cell := found[i]) and cell.arm in arms}
    used = {row: (arms[cell.arm], exhibit.metric(i, cell)) for row, cell in cells.items()}
    return Column(Scope.of(measure, [arm for arm, _ in used.values()]), exhibit.split, used)


def _entries(column: Column, exhibit: TableExhibit, i: int, units: Units) -> list[TableCell]:
    found = []
    for row, cells in exhibit.rows.items():
        arm, metric = column.cells.get(row, (None, ""))
        if arm is None:
            found.append(TableCell(NONE) if cells[i] else EMPTY)
        elif metric in _READ:
            found.append(_number(column.scope, arm, metric))
        else:
            rival = column.average(exhibit.against[row]) if row in exhibit.against else None
            found.append(_accuracy(column.average(row), rival, units))
    return found


def _accuracy(average: Average | None, rival: Average | None, units: Units) -> TableCell:
    """A mean with its interval, or with the paired difference to a rival in its place."""
    difference = average.minus(rival) if average and rival else None
    if average is None or difference is None:
        return units.mean(average.interval if average else None)
    detail = f"({units.number(difference.value, True)} {units.range(difference, True)})"
    return TableCell(units.number(average.interval.value), detail, difference.verdict)


def _best(scope: Scope, arm: ArmResult, split: str) -> Average | None:
    """The accuracy of the expert that is best on validation, the first of equals."""
    places = scope.places(arm, "target")
    scored = [(found.interval.value, p) for p in places if (found := scope.measure.average(arm.chosen, [p], "val"))]
    best = max(scored, key=lambda pair: pair[0], default=None)
    return scope.measure.average(arm.chosen, [best[1]], split) if best else None


def _number(scope: Scope, arm: ArmResult, metric: str) -> TableCell:
    groups = dict.fromkeys(place.group for place in scope.places(arm, "target"))
    chosen = [candidate for group in groups if (candidate := arm.chosen(group)) is not None]
    values = [value for candidate in chosen if (value := _READ[metric](candidate)) is not None]
    if not values:
        return TableCell(NONE)
    combined = _COMBINE.get(metric, fmean)(values)
    origins = [alpha_origin(c) for c in chosen] if metric == "alpha" else []
    return TableCell(f"{combined:.3g}", next(filter(None, origins), ""))


def _leads(exhibit: TableExhibit, measure: Measure) -> list[TableCell]:
    """The rows' names, each with the colour of its arm if it has only one."""
    arms = {arm.name: arm for arm in measure.arms}
    whole = {row: {cell.arm for cell in cells if cell} for row, cells in exhibit.rows.items()}
    alone = {row: name for row, names in whole.items() if len(names) == 1 and (name := next(iter(names))) in arms}
    shown = {arm.name: arm for arm in distinct([arms[name] for name in dict.fromkeys(alone.values())])}
    return [
        lead(replace(shown[alone[row]], name=row)) if row in alone else TableCell(row, tone="lead")
        for row in exhibit.rows
    ]


def _note(exhibit: TableExhibit, units: Units) -> str:
    metrics = {exhibit.metric(i, cell) for cells in exhibit.rows.values() for i, cell in enumerate(cells) if cell}
    sentences = [f"{split_word(exhibit.split)}."]
    if metrics & {*ACCURACIES, "best"}:
        sentences.append(f"{INTERVALS}.")
    if exhibit.against:
        points = units.points and ", in points"
        sentences.append(f"In round brackets: the paired difference{points}{_compared(exhibit)}.")
    if exhibit.paper:
        sentences.append("Paper: the numbers printed in the paper.")
    return caption(exhibit.note, *sentences)


def _compared(exhibit: TableExhibit) -> str:
    """Which rows are subtracted; more than three in a regular order are not named one by one."""
    above, last = {}, ""
    for row in exhibit.rows:
        if row in exhibit.against:
            above[row] = last
        else:
            last = row
    if len(above) > 3 and above == exhibit.against:
        return ", to the nearest row above without one"
    return ": " + "; ".join(f"{row} minus {other}" for row, other in exhibit.against.items())
