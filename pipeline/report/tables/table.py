"""One table of the report, free of its rendering: the HTML, the Markdown and the terminal show the same cells."""

from collections.abc import Iterable
from dataclasses import dataclass

from search.intervals import Interval

NONE = "–"
#: How a difference can turn out; a cell of that tone says the word too, since colour alone is not for all eyes.
WORDS = ("better", "worse", "tie", "trade-off")


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell.

    Attributes:
        text: what it says.
        detail: said smaller beside it, such as an interval.
        tone: "", one of WORDS, lead (a row's name) or code.
        colour: of the arm's swatch, or "".
    """

    text: str
    detail: str = ""
    tone: str = ""
    colour: str = ""

    @property
    def plain(self) -> str:
        """All of it in one line."""
        word = self.tone if self.tone in WORDS and self.tone != self.text else ""
        return " ".join(part for part in (self.text, self.detail, word) if part)


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table with a note on how to read it."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]


def decimal(value: float, digits: int, sign: bool = False) -> str:
    """A number with a true minus sign.

    With `sign`, a plus too, also where it rounds to 0: an interval of [+0.0, +0.6] does not hold 0.
    """
    value = 0.0 if abs(value) < 1e-9 else value  # what floating point leaves of a difference of equals
    shown = f"{value:{'+' if sign and value else ''}.{digits}f}".replace("-", "−")
    return shown if sign or float(shown.replace("−", "-")) else shown.removeprefix("−")


@dataclass(frozen=True, slots=True)
class Units:
    """How values read: per cent for accuracies, the metric's own unit with three decimals otherwise."""

    percent: bool

    @property
    def points(self) -> str:
        """The unit of a difference, with a space in front."""
        return " points" if self.percent else ""

    def number(self, value: float, sign: bool = False) -> str:
        """One value, with a true minus sign."""
        return decimal(100 * value, 1, sign) if self.percent else decimal(value, 3, sign)

    def axis(self, value: float) -> float:
        """One value in the unit of the figures' axes, at the precision that a figure can show."""
        return round(100 * value, 2) if self.percent else round(value, 4)

    def axes(self, values: Iterable[float]) -> list[float]:
        """Many of them."""
        return [self.axis(float(value)) for value in values]

    @property
    def suffix(self) -> str:
        """The unit in an axis title."""
        return " (%)" if self.percent else ""

    def range(self, interval: Interval, sign: bool = False) -> str:
        """The interval in square brackets."""
        return f"[{self.number(interval.low, sign)}, {self.number(interval.high, sign)}]"

    def mean(self, interval: Interval | None) -> TableCell:
        """A mean and its interval."""
        return TableCell(NONE) if interval is None else TableCell(self.number(interval.value), self.range(interval))

    def difference(self, interval: Interval | None) -> TableCell:
        """A paired difference, its interval and the word for it."""
        if interval is None:
            return TableCell(NONE)
        return TableCell(self.number(interval.value, True), self.range(interval, True), interval.verdict)
