"""The forest plot beside a verdict: each paired difference as a line with its interval, on one scale around 0."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.report.data.run import BITS
from pipeline.report.tables.table import Units
from search.intervals import Interval

if TYPE_CHECKING:
    from pipeline.report.tables.verdict import ArmComparison

#: Standard errors between 0 and a true difference that a two-sided test at 5% finds with a probability of 80%.
_FOUND = 1.96 + 0.84


@dataclass(frozen=True, slots=True)
class ForestLine:
    """One difference, in per cent of the plot's width.

    Attributes:
        label: the opponent, and what was compared.
        colour: the opponent's.
        word: better, worse or tie.
        low: left end of the interval.
        value: the difference.
        high: right end.
    """

    label: str
    colour: str
    word: str
    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class Forest:
    """All differences of a verdict.

    Attributes:
        lines: from top to bottom.
        zero: place of no difference, in per cent of the width.
        left: value at the left edge, as text.
        right: value at the right edge, as text.
    """

    lines: tuple[ForestLine, ...]
    zero: float
    left: str
    right: str


def forest(comparisons: Sequence["ArmComparison"], units: Units) -> Forest:
    """Return the plot of the differences of a LiNeS arm to its opponents, by role; those in bits have another scale."""
    roles = list(dict.fromkeys(role for c in comparisons for role, _ in c.differences if not role.endswith(BITS)))
    found = [(c.other, role, i) for role in roles for c in comparisons for r, i in c.differences if r == role]
    low, high = min([0.0, *(i.low for *_, i in found)]), max([0.0, *(i.high for *_, i in found)])
    width = high - low or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    lines = tuple(
        ForestLine(f"{role}: {other.name}", other.colour, i.verdict, place(i.low), place(i.value), place(i.high))
        for other, role, i in found
    )
    return Forest(lines, place(0), units.number(low, True), units.number(high, True))


def smallest_found(intervals: Iterable[Interval]) -> float:
    """Return the difference that each comparison would find with a probability of 80%, from the widest interval."""
    widest = max(interval.high - interval.low for interval in intervals)
    return _FOUND * widest / (2 * 1.96)
