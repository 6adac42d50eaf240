"""What a run's tables say of LiNeS: every cell that sets it against a model without it, told from LiNeS's side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.report.data.arms import ArmResult
from pipeline.report.tables.table import Table
from pipeline.report.tables.verdict import ArmVerdict
from pipeline.spec.exhibits import TableExhibit

Word = Literal["better", "tie", "worse"]
Rival = Literal["plain", "control"]
#: What LiNeS is compared with, in words: a plain arm, or one of the controls that tell depth from mere shrinking.
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
        rows: the LiNeS row and the one it is compared with.
        column: of the table.
        rival: what LiNeS is compared with.
        word: how LiNeS does.
    """

    rows: tuple[str, str]
    column: str
    rival: Rival
    word: Word


@dataclass(frozen=True)
class Standing:
    """How LiNeS stands against one kind of rivals, by all claims of one exhibit or run."""

    claims: Sequence[Claim]

    @property
    def parts(self) -> list[tuple[Word, str]]:
        """Each word that is said, and of which columns where two rows are compared, else of how many cells."""
        pair = len({claim.rows for claim in self.claims}) == 1
        found = []
        for word in _OWN.values():
            columns = [claim.column for claim in self.claims if claim.word == word]
            whose = " · ".join(columns) if pair else f"{len(columns)} of {len(self.claims)}"
            found += [(word, whose)] if columns else []
        return found

    @property
    def plain(self) -> str:
        """All of it in one line."""
        return "; ".join(f"{word}: {whose}" for word, whose in self.parts)


def standings(claims: Sequence[Claim]) -> list[Standing]:
    """One for each of `RIVALS`."""
    return [Standing([claim for claim in claims if claim.rival == rival]) for rival in RIVALS]


def table_claims(exhibit: TableExhibit, table: Table, arms: Mapping[str, ArmResult]) -> list[Claim]:
    """What an exhibit says in the rows that are compared with another."""
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
    """What the verdicts on a run's LiNeS arms say."""
    found = []
    for verdict in verdicts:
        own, columns = Side(verdict.arm.name, verdict.arm), verdict.table.columns
        for entries in verdict.table.rows:
            other = Side(entries[0].text, arms[entries[0].text])
            cells = [(c, entry) for c, entry in zip(columns, entries, strict=True) if c not in ("against", "in all")]
            found += [_claim(own, other, column, entry.tone) for column, entry in cells]
    return [claim for claim in found if claim]


def _claim(left: Side, right: Side, column: str, said: str) -> Claim | None:
    """What is said of `left` against `right`; None where not just one of them is LiNeS."""
    for lines, other, words in ((left, right, _OWN), (right, left, _TURNED)):
        rival = _rival(lines.arm, other.arm)
        if rival and said in words:
            return Claim((lines.row, other.row), column, rival, words[said])
    return None


def _rival(lines: ArmResult, other: ArmResult) -> Rival | None:
    if lines.role != "lines":
        return None
    if other.control_of == lines.name:
        return "control"
    return "plain" if other.role == "plain" else None
