"""Every cell of a run's tables that compares LiNeS with a model without it, as a result of LiNeS."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.report.data.arms import ArmResult
from pipeline.report.tables.table import Table
from pipeline.report.tables.verdict import ArmVerdict
from pipeline.spec.exhibits import TableExhibit

Word = Literal["better", "tie", "worse"]
Rival = Literal["plain", "control"]
#: The opponents of LiNeS: plain arms, and the controls that separate the effect of depth from mere shrinking.
RIVALS: dict[Rival, str] = {"plain": "against models without LiNeS", "control": "against its matched controls"}
_OWN: dict[str, Word] = {"better": "better", "tie": "tie", "worse": "worse"}
_TURNED: dict[str, Word] = {"better": "worse", "tie": "tie", "worse": "better"}


@dataclass(frozen=True, slots=True)
class Side:
    """A row of a table and its arm."""

    row: str
    arm: ArmResult


@dataclass(frozen=True, slots=True)
class Claim:
    """One compared cell.

    Attributes:
        rows: the LiNeS row and the row of its rival.
        column: of the table.
        rival: the kind of rival.
        word: the result of LiNeS.
    """

    rows: tuple[str, str]
    column: str
    rival: Rival
    word: Word


@dataclass(frozen=True)
class Standing:
    """The results of LiNeS against one kind of rival: all claims of one exhibit or run."""

    claims: Sequence[Claim]

    @property
    def parts(self) -> list[tuple[Word, str]]:
        """Each word that occurs, with its columns if only two rows are compared, else with its number of cells."""
        pair = len({claim.rows for claim in self.claims}) == 1
        found = []
        for word in _OWN.values():
            columns = [claim.column for claim in self.claims if claim.word == word]
            where = " · ".join(columns) if pair else f"{len(columns)} of {len(self.claims)}"
            found += [(word, where)] if columns else []
        return found

    @property
    def plain(self) -> str:
        """All parts in one line."""
        return "; ".join(f"{word}: {where}" for word, where in self.parts)


def standings(claims: Sequence[Claim]) -> list[Standing]:
    """Return one standing for each of `RIVALS`."""
    return [Standing([claim for claim in claims if claim.rival == rival]) for rival in RIVALS]


def table_claims(exhibit: TableExhibit, table: Table, arms: Mapping[str, ArmResult]) -> list[Claim]:
    """Return the claims of an exhibit, from the rows that it compares with another row."""
    found = []
    for (row, cells), entries in zip(exhibit.rows.items(), table.rows, strict=True):
        other = exhibit.against.get(row, row)
        shown = dict(zip(table.columns, entries, strict=True))
        for column, own, rival in zip(exhibit.columns, cells, exhibit.rows[other], strict=True):
            if own and rival and shown[column].tone:
                left, right = Side(row, arms[own.arm]), Side(other, arms[rival.arm])
                found.append(_claim(left, right, column, shown[column].tone))
    return [claim for claim in found if claim]


def verdict_claims(verdicts: Iterable[ArmVerdict], arms: Mapping[str, ArmResult]) -> list[Claim]:
    """Return the claims of the verdicts on a run's LiNeS arms."""
    found = []
    for verdict in verdicts:
        own, columns = Side(verdict.arm.name, verdict.arm), verdict.table.columns
        for entries in verdict.table.rows:
            other = Side(entries[0].text, arms[entries[0].text])
            cells = [(c, entry) for c, entry in zip(columns, entries, strict=True) if c not in ("against", "in all")]
            found += [_claim(own, other, column, entry.tone) for column, entry in cells]
    return [claim for claim in found if claim]


def _claim(left: Side, right: Side, column: str, tone: str) -> Claim | None:
    """The claim of a cell, `left` against `right`; None unless exactly one of them is LiNeS."""
    for lines, other, words in ((left, right, _OWN), (right, left, _TURNED)):
        rival = _rival(lines.arm, other.arm)
        if rival and tone in words:
            return Claim((lines.row, other.row), column, rival, words[tone])
    return None


def _rival(lines: ArmResult, other: ArmResult) -> Rival | None:
    if lines.role != "lines":
        return None
    if other.control_of == lines.name:
        return "control"
    return "plain" if other.role == "plain" else None
