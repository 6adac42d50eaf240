"""One table of the report, independent of its rendering: HTML, Markdown and the terminal show the same cells."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.run import BITS, Run
from search.intervals import Interval
from tasks.metrics import BITS_PER_BYTE, lower_is_better

NONE = "–"
#: The outcomes of a difference; a cell of this tone also shows the word, because not everyone sees the colour.
WORDS = ("better", "worse", "tie", "trade-off")


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell.

    Attributes:
        text: the main text.
        detail: smaller text after it, such as an interval.
        tone: "", one of WORDS, lead (a row's name) or code.
        colour, symbol: of the arm's swatch, or "".
    """

    text: str
    detail: str = ""
    tone: str = ""
    colour: str = ""
    symbol: str = ""

    @property
    def plain(self) -> str:
        """Text, detail and word in one line."""
        word = self.tone if self.tone in WORDS and self.tone != self.text else ""
        return " ".join(part for part in (self.text, self.detail, word) if part)


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table with a note on how to read it."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]


def role_units(run: Run, role: str) -> "Units":
    """Return the units of a role's means; the role's column name does too."""
    return Units.of_metric(BITS_PER_BYTE) if role.endswith(BITS) else Units(run.percent)


def lead(arm: ArmResult, detail: str = "") -> TableCell:
    """Return an arm's name as the first cell of a row."""
    return TableCell(arm.name, detail, tone="lead", colour=arm.colour, symbol=arm.symbol)


def counted(number: int, what: str) -> str:
    """Return "1 expert" or "8 experts"."""
    return f"{number} {what}{'s' * (number != 1)}"


def decimal(value: float, digits: int, sign: bool = False) -> str:
    """Return a number with a true minus sign.

    With `sign`, positive numbers have a plus, even if they round to 0: the interval [+0.0, +0.6] does not contain 0.
    """
    value = 0.0 if abs(value) < 1e-9 else value  # floating-point noise in a difference of equals
    shown = f"{value:{'+' if sign and value else ''}.{digits}f}".replace("-", "−")
    return shown if sign or float(shown.replace("−", "-")) else shown.removeprefix("−")


@dataclass(frozen=True, slots=True)
class Units:
    """How values are shown: per cent for accuracies, else the metric's own unit with `digits` decimals."""

    percent: bool
    digits: int = 3

    @classmethod
    def of_metric(cls, metric: str) -> "Units":
        """Return the units of a task's metric; differences of bits per byte are in the fourth decimal."""
        return cls(metric == "accuracy", digits=4 if lower_is_better(metric) else 3)

    @property
    def points(self) -> str:
        """The unit of a difference, with a space in front."""
        return " points" if self.percent else ""

    def number(self, value: float, sign: bool = False) -> str:
        """Return one value, with a true minus sign."""
        return decimal(100 * value, 1, sign) if self.percent else decimal(value, self.digits, sign)

    def axis(self, value: float) -> float:
        """Return one value in the unit of the figures' axes, at the precision that a figure can show."""
        return round(100 * value, 2) if self.percent else round(value, 4)

    def axes(self, values: Iterable[float]) -> list[float]:
        """Return many values in the unit of the axes."""
        return [self.axis(float(value)) for value in values]

    @property
    def sign(self) -> str:
        """The unit right behind a number in a sentence."""
        return "%" if self.percent else ""

    @property
    def suffix(self) -> str:
        """The unit in an axis title."""
        return " (%)" if self.percent else ""

    def range(self, interval: Interval, sign: bool = False) -> str:
        """Return the interval in square brackets."""
        return f"[{self.number(interval.low, sign)}, {self.number(interval.high, sign)}]"

    def mean(self, interval: Interval | None) -> TableCell:
        """Return the cell of a mean with its interval."""
        return TableCell(NONE) if interval is None else TableCell(self.number(interval.value), self.range(interval))

    def difference(self, interval: Interval | None) -> TableCell:
        """Return the cell of a paired difference with its interval and its word."""
        if interval is None:
            return TableCell(NONE)
        return TableCell(self.number(interval.value, True), self.range(interval, True), interval.verdict)
