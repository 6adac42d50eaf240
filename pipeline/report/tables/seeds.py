"""The table of choices of random merge methods over seeds, and the differences that lie within their spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import CandidateRow
from pipeline.report.tables.table import NONE, Table, TableCell, lead, role_units
from pipeline.report.tables.verdict import ROLE_WORDS

_NOTE = (
    "The choice of each arm with several seeds, merged again with other random numbers and scored on the same samples "
    "of {split}. SD: standard deviation over seeds. Within it: the arms whose mean lies between the lowest and the "
    "highest over seeds, or whose own seeds overlap; a difference to them may be luck of the seed, whatever its "
    "interval over samples says."
)


@dataclass(frozen=True)
class _Spread:
    """The means of one role over seeds, the chosen one first; one value for an arm without seeds."""

    values: Sequence[float]

    @property
    def ends(self) -> tuple[float, float]:
        return min(self.values), max(self.values)

    def overlaps(self, other: "_Spread") -> bool:
        (low, high), (other_low, other_high) = self.ends, other.ends
        return low <= other_high and other_low <= high


def seeds_table(measure: Measure) -> Table:
    """Return a row for each arm with several seeds and role: on test, or on validation before test is read."""
    further: dict[str, list[CandidateRow]] = {}
    for candidate in measure.run.candidates:
        if candidate.control == "seeds":
            further.setdefault(candidate.control_of, []).append(candidate)
    tested = any(split == "test" for found in further.values() for c in found for _, split in measure.run.scored(c))
    split = "test" if tested else "val"
    rows = [row for arm in measure.arms if arm.name in further for row in _rows(measure, arm, further, split)]
    columns = ("arm", "metric", "seeds", "chosen", "mean", "SD", "lowest to highest", "within it")
    note = _NOTE.format(split={"test": "test", "val": "validation"}[split])
    return Table("Spread over seeds", note, columns, tuple(rows))


def _rows(
    measure: Measure, arm: ArmResult, further: Mapping[str, list[CandidateRow]], split: str
) -> list[tuple[TableCell, ...]]:
    bench = measure.bench(arm)
    rows = []
    for role in bench.roles if bench else ():
        assert bench is not None
        spread = _spread(measure, arm, bench, role, split, further)
        if spread is None or len(spread.values) < 2:
            continue
        others = [a for a in bench.arms if a.name != arm.name and a.kind == arm.kind]
        near = [
            a.name for a in others if (s := _spread(measure, a, bench, role, split, further)) and s.overlaps(spread)
        ]
        units = role_units(measure.run, role)
        low, high = (units.number(end) for end in spread.ends)
        numbers = (spread.values[0], float(np.mean(spread.values)), float(np.std(spread.values, ddof=1)))
        shown = (str(len(spread.values)), *map(units.number, numbers), f"{low} to {high}", "; ".join(near) or NONE)
        rows.append((lead(arm), TableCell(ROLE_WORDS[arm.kind, role]), *map(TableCell, shown)))
    return rows


def _spread(
    measure: Measure,
    arm: ArmResult,
    bench: ComparableArms,
    role: str,
    split: str,
    further: Mapping[str, list[CandidateRow]],
) -> _Spread | None:
    """Return the means of an arm over its seeds; None if its choice was not scored."""
    models = [arm.chosen(""), *further.get(arm.name, ())]
    means = [measure.mean({"": model}.get, bench.over(role), split) for model in models]
    found = [interval.value for interval in means if interval is not None]
    return _Spread(found) if means[0] is not None else None
