"""Was the gate right? What `lines inspect` predicted on validation, beside what LiNeS arms showed on test."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.records.gate import FILE_NAME, Gate, GatedEdit, combination, earlier_form
from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.tables.gate import title
from pipeline.report.tables.table import Table, TableCell, lead, role_units
from pipeline.report.tables.verdict import ROLE_WORDS, ArmComparison
from tasks.files.json_files import read_object

#: Functions whose coefficient grows with depth: they damp the first blocks, as the gate assumes.
_GROWING = ("linear", "sqrt", "quadratic", "power", "cosine")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was predicted, and what came of it.

    Attributes:
        sentence: how often the gate was right.
        table: one row for each edit or merge of a LiNeS arm.
    """

    sentence: str
    table: Table


@dataclass(frozen=True, slots=True)
class Outcome:
    """One edit or merge: what the gate said, and a LiNeS arm against its tuned constant on test.

    Attributes:
        edit: what was left out on validation, and what that cost.
        arm: the LiNeS arm.
        comparison: with its tuned constant, on test.
    """

    edit: GatedEdit
    arm: ArmResult
    comparison: ArmComparison

    @property
    def right(self) -> bool | None:
        """Whether the gate was right; None if it was open."""
        won, word = self.comparison.word == "better", self.edit.predicted.word
        return None if word == "open" else won == (word == "room")


def predicted(measure: Measure) -> Predicted | None:
    """Return what a gate in the run's folder predicted; None without one, or if no LiNeS arm has a tuned constant."""
    found = outcomes(measure)
    return Predicted(_sentence(found), _table(found, measure)) if found else None


def outcomes(measure: Measure) -> list[Outcome]:
    """Return each edit and merge of a LiNeS arm with a tuned constant that the gate in the run's folder took apart."""
    gate = _read(measure)
    return [] if gate is None else list(_outcomes(gate, measure))


def _read(measure: Measure) -> Gate | None:
    path = measure.run.folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        gate = Gate.from_json(read_object(path, FILE_NAME).get("gate", {}))
    except ValueError as error:
        logger.warning("%s: ignored: %s", path, error)
        return None
    if not _is_of_run(gate, measure.run.provenance):
        logger.warning("%s: ignored: it is of other checkpoints or data than the run", path)
        return None
    return gate


def _is_of_run(gate: Gate, provenance: Mapping[str, Any]) -> bool:
    tasks = {task["name"]: (task["fingerprint"], task["n"].get("val", 0)) for task in provenance["tasks"]}
    return gate.checkpoints == provenance["checkpoints"] and all(
        tasks.get(name) in (found, (found[0], 0)) for name, found in gate.tasks.items()
    )


def _outcomes(gate: Gate, measure: Measure) -> Iterator[Outcome]:
    for arm in (a for a in measure.arms if a.role == "lines" and _grows(a)):
        bench = measure.bench(arm)
        constant = _constant(arm, bench) if bench else None
        if bench is None or constant is None:
            continue
        for group in arm.groups:
            edit = _edit_of(gate, arm, group, measure.run.provenance["experts"])
            comparison = _compared(arm, constant, group, measure, bench)
            if edit is not None and comparison.differences:
                yield Outcome(edit, arm, comparison)


def _constant(arm: ArmResult, bench: ComparableArms) -> ArmResult | None:
    return next((a for a in bench.arms if a.control_of == arm.name and a.role == "constant"), None)


def _grows(arm: ArmResult) -> bool:
    return any(candidate.recipe.scaling in _GROWING for candidate in arm.candidates)


def _edit_of(gate: Gate, arm: ArmResult, group: str, experts: Sequence[str]) -> GatedEdit | None:
    """Return what the gate took apart: the edit of an expert, or a merge that combines in the same way.

    Of several merges the arm's own counts: they may search the same parameters over other ranges. A gate of an earlier
    version does not say which experts a merge has whose weights are searched: only the arm's own counts then.
    """
    candidates = [c for c in arm.candidates if c.group == group and c.recipe.method != "zero"]
    made = {combination(c.recipe, c.point, experts) for c in candidates}
    earlier = set(map(earlier_form, made))
    own = (e for e in gate.edits if (e.kind, e.name) == (arm.kind, arm.name) and e.combined in made | earlier)
    return next(own, next((e for e in gate.edits if e.kind == arm.kind and e.combined in made), None))


def _compared(
    arm: ArmResult, constant: ArmResult, group: str, measure: Measure, bench: ComparableArms
) -> ArmComparison:
    found = []
    for role in bench.roles:
        places = [place for place in bench.over(role) if place.group == group]
        interval = measure.difference(arm.chosen, constant.chosen, places, "test") if places else None
        if interval is not None:
            found.append((ROLE_WORDS[arm.kind, role], interval))
    return ArmComparison(constant, tuple(found))


def _sentence(found: list[Outcome]) -> str:
    left = sum(o.edit.predicted.word == "open" for o in found)
    decided = [o.right for o in found if o.right is not None]
    if not decided:
        return "The gate decided nothing: it left all open."
    parts = [
        f"{word} for {len(of)}, of which LiNeS beat the tuned constant in {sum(of)}"
        for word in ("room", "no room")
        if (of := [o.comparison.word == "better" for o in found if o.edit.predicted.word == word])
    ]
    return f"The gate was right in {sum(decided)} of {len(decided)}: {'; '.join(parts)}. It left {left} open."


def _table(found: list[Outcome], measure: Measure) -> Table:
    roles = list(dict.fromkeys(role for o in found for role, _ in o.comparison.differences))
    rows = []
    for outcome in found:
        by_role = dict(outcome.comparison.differences)
        cells = [role_units(measure.run, role).difference(by_role.get(role)) for role in roles]
        right = {True: "right", False: "wrong", None: "open"}[outcome.right]
        word = outcome.comparison.word
        about = (TableCell(outcome.edit.predicted.word), TableCell(word, tone=word), TableCell(right))
        rows.append((lead(outcome.arm, f"({title(outcome.edit)})"), *about, *cells))
    note = (
        "Predicted on validation by `lines inspect`; shown on test: the LiNeS arm minus its tuned constant, paired "
        "differences with 95% intervals. Room is right if LiNeS is better; no room is right if it is not. A tie may "
        "also mean that there are too few samples."
    )
    return Table("Was the gate right?", note, ("arm", "predicted", "shown", "the gate", *roles), tuple(rows))
