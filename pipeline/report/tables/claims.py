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
                found.append(_claim((row, other), (arms[own.arm], arms[rival.arm]), column, shown[column].tone))
    return [claim for claim in found if claim]


def verdict_claims(verdicts: Iterable[ArmVerdict], arms: Mapping[str, ArmResult]) -> list[Claim]:
    """Return the claims of the verdicts on a run's LiNeS arms."""
    found = []
    for verdict in verdicts:
        for other, *entries in verdict.table.rows:
            names, pair = (verdict.arm.name, other.text), (verdict.arm, arms[other.text])
            cells = zip(verdict.table.columns[1:], entries, strict=True)
            found += [_claim(names, pair, column, entry.tone) for column, entry in cells if column != "in all"]
    return [claim for claim in found if claim]


def _claim(rows: tuple[str, str], arms: tuple[ArmResult, ArmResult], column: str, tone: str) -> Claim | None:
    """The claim of a cell, the first row against the second; None unless exactly one of them is LiNeS."""
    for order, words in (((0, 1), _OWN), ((1, 0), _TURNED)):
        lines, other = order
        rival = _rival(arms[lines], arms[other])
        if rival and tone in words:
            return Claim((rows[lines], rows[other]), column, rival, words[tone])
    return None


def _rival(lines: ArmResult, other: ArmResult) -> Rival | None:
    if lines.role != "lines":
        return None
    if other.control_of == lines.name:
        return "control"
    return "plain" if other.role == "plain" else None
