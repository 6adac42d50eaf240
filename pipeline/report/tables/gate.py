"""The leave-one-group-out gate in words and as tables."""

from collections.abc import Sequence

from pipeline.records.gate import ALLOWED_ACCURACY, ALLOWED_PART, THIRDS, GatedEdit
from pipeline.report.data.run import BITS
from pipeline.report.tables.table import Table, TableCell, Units
from tasks.metrics import BITS_PER_BYTE

#: The gate's reasons in words; see `pipeline.records.gate.Reason`.
REASONS = {
    "free": "LiNeS has room: the target hardly needs the first third, and the last third does the work",
    "needed": "No room: the target needs the first third, so a profile that damps it will lose; a constant is expected "
    "to repair as well",
    "even": "No room: the target needs the last third no more than the first, so depth does not tell them apart; a "
    "constant is expected to do as well",
    "nothing lost": "No room: the control tasks lost nothing that could be repaired",
    "not given back": "No room: the control tasks lose even more without the first third, so damping it repairs "
    "nothing; a constant is expected to repair better",
    "lost deep": "No room: what the control tasks lost comes back without the last third more than without the first, "
    "and a profile keeps the last; a constant is expected to repair better",
    "nothing gained": "Open: the edit is not shown to improve its target on validation",
    "unsure": "Open: the intervals contain the thresholds; more validation samples would decide",
}


def gate_note() -> str:
    """Return how the gate was measured, and its thresholds."""
    point = Units(True).number(ALLOWED_ACCURACY)
    return (
        "Validation split. The brackets are 95% intervals of paired differences, by bootstrap over the samples; they "
        "are not adjusted for the number of edits. LiNeS has room if removing the update of the first third of the "
        f"blocks surely costs the target at most {point} point of accuracy (of other metrics {ALLOWED_PART:.0%} of "
        "what the edit changes), and removing that of the last third surely costs more than that of the first. It has "
        f"none if the first third surely costs more than {point} point, if the last surely costs at most {point} "
        f"point more than the first, if the control tasks surely lost at most {point} point, if they surely lose more "
        "without the first third, or if they surely regain more without the last third than without the first. "
        "Otherwise the gate is open: it says nothing. Surely: by the end of the interval."
    )


def gate_sentences(edits: Sequence[GatedEdit]) -> list[str]:
    """Return one sentence for each edit and merge."""
    return [f"{title(edit)}: {_losses(edit)} {REASONS.get(edit.predicted.why, edit.predicted.why)}." for edit in edits]


def title(edit: GatedEdit) -> str:
    """Return an edit's name for a sentence or a row."""
    return edit.name if edit.kind == "edit" else f"merge of {edit.name} at λ = {edit.constant:.3g}"


def _losses(edit: GatedEdit) -> str:
    if edit.target is None:
        return "not measured:"
    units, cost = units_of(edit), edit.target.cost
    first, last = (f"{units.number(cost[t].value)} {units.range(cost[t])}" for t in ("first", "last"))
    return f"removing the first third costs the target {first}{units.points}, the last third {last}."


def units_of(edit: GatedEdit, role: str = "target") -> Units:
    """Return the units of a role's losses."""
    return Units.of_metric(BITS_PER_BYTE) if role.endswith(BITS) else Units(edit.accuracy)


def gate_tables(edits: Sequence[GatedEdit]) -> list[Table]:
    """Return one table for each role."""
    return [_table(edits, role) for role in dict.fromkeys(role for edit in edits for role in edit.roles)]


def _table(edits: Sequence[GatedEdit], role: str) -> Table:
    rows = []
    for edit in (e for e in edits if role in e.roles):
        losses, units = edit.roles[role], units_of(edit, role)
        gain = TableCell(units.number(losses.gain.value, True), units.range(losses.gain, True))
        costs = [TableCell(units.number(c.value), units.range(c)) for c in (losses.cost[third] for third in THIRDS)]
        word = TableCell(edit.predicted.word) if role.startswith("target") else None
        rows.append((TableCell(title(edit), tone="lead"), gain, *costs, *([word] if word else [])))
    columns = ("edit", "whole edit", *(f"without the {third} third" for third in THIRDS))
    note = (
        "What the whole edit gains over the base (a loss is negative), and what it loses without the update of a third "
        "of the blocks (a gain is negative)."
    )
    return Table(f"Gate: {role}", note, (*columns, *(["room"] if role.startswith("target") else [])), tuple(rows))
