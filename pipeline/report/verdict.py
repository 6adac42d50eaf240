"""The headline: each LiNeS arm on test against the plain arms and against its matched controls, in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.arms import CONTROL_WORDS, Arm, opponents
from pipeline.report.measure import Measure
from pipeline.report.table import Entry, Table, Units
from search.intervals import Interval

#: How a column is called; the targets of a merge are all its experts' tasks.
ROLE_WORDS = {
    ("edit", "target"): "target",
    ("edit", "control"): "control",
    ("edit", "ood"): "OOD",
    ("merge", "target"): "mean accuracy",
    ("merge", "control"): "control",
    ("merge", "ood"): "OOD",
}
#: What follows from how a LiNeS arm stands against a constant that was tuned in the same way.
DEPTH_WORDS = {
    "better": "It beats a constant tuned in the same way.",
    "worse": "A constant tuned in the same way does better: here the profile over depth does not help.",
    "tie": "It ties with a constant tuned in the same way: here the profile over depth is not shown to matter.",
    "trade-off": "Against a constant tuned in the same way it gains on one side and loses on the other.",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A LiNeS arm against one other arm: a paired difference for each role."""

    other: Arm
    differences: tuple[tuple[str, Interval], ...]

    @property
    def word(self) -> str:
        """Better or worse where no role says the contrary, tie where none says anything, else trade-off."""
        said = {interval.verdict for _, interval in self.differences} - {"tie"}
        return "trade-off" if len(said) > 1 else next(iter(said), "tie")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one LiNeS arm."""

    arm: Arm
    sentences: tuple[str, ...]
    table: Table


def verdicts(measure: Measure) -> list[Verdict]:
    """One verdict for each LiNeS arm that has test scores."""
    return [v for arm in measure.arms if arm.role == "lines" and (v := _verdict(arm, measure))]


def _verdict(arm: Arm, measure: Measure) -> Verdict | None:
    units = Units(measure.run.percent)
    comparisons = [c for other in opponents(arm, measure.arms) if (c := _compare(arm, other, measure)).differences]
    if not comparisons:
        return None
    plain = [c for c in comparisons if c.other.role == "plain"]
    words = [f"Against {c.other.name}, {arm.name} {_clauses(c, units)}." for c in plain]
    controls = [c for c in comparisons if c.other.control_of]
    sentences = (*words, *_control_sentences(controls, units))
    return Verdict(arm, sentences, _table(arm, comparisons, units))


def _compare(arm: Arm, other: Arm, measure: Measure) -> Comparison:
    found = []
    for role in measure.roles(arm.kind):
        interval = measure.difference(arm.chosen, other.chosen, measure.places[arm.kind, role], "test")
        if interval is not None:
            found.append((ROLE_WORDS[arm.kind, role], interval))
    return Comparison(other, tuple(found))


def _clauses(comparison: Comparison, units: Units) -> str:
    """For people: is better on control (+7.1 points, [6.3, 7.9]), tied on target (...)."""
    parts = []
    for verdict in ("better", "worse", "tie"):
        said = [
            f"{role} ({units.number(i.value, True)}{units.points}, {units.range(i, True)})"
            for role, i in comparison.differences
            if i.verdict == verdict
        ]
        parts += [f"{'tied' if verdict == 'tie' else verdict} on {_list(said)}"] if said else []
    return f"is {', '.join(parts)}"


def _control_sentences(controls: Sequence[Comparison], units: Units) -> list[str]:
    if not controls:
        return ["It was run without matched controls, so nothing here tells depth from mere shrinking."]
    beaten = [CONTROL_WORDS[c.other.role] for c in controls if c.word == "better"]
    rest = [f"{CONTROL_WORDS[c.other.role]} ({c.word})" for c in controls if c.word != "better"]
    if not rest:
        said = [f"It beats every matched control: {_list(beaten)}."]
    elif beaten:
        said = [f"It beats {len(beaten)} of its {len(controls)} matched controls ({_list(beaten)}), not {_list(rest)}."]
    else:
        said = [f"It beats none of its {len(controls)} matched controls: {_list(rest)}."]
    tuned = next((c for c in controls if c.other.role == "constant"), None)
    if tuned is not None:
        matters = " As it beats all controls, the profile over depth matters here." * (not rest)
        said.append(f"{DEPTH_WORDS[tuned.word]} Against that constant it {_clauses(tuned, units)}.{matters}")
    return said


def _table(arm: Arm, comparisons: Sequence[Comparison], units: Units) -> Table:
    roles = list(dict.fromkeys(role for c in comparisons for role, _ in c.differences))
    rows = []
    for c in comparisons:
        by_role = dict(c.differences)
        cells = [units.difference(by_role.get(role)) for role in roles]
        what = CONTROL_WORDS.get(c.other.role, "no scaling over depth")
        lead = Entry(c.other.name, f"({what})", tone="lead", colour=c.other.colour)
        rows.append((lead, Entry(c.word, tone=c.word), *cells))
    unit = units.points and " in points"
    note = f"Test split, paired differences{unit}: {arm.name} minus the row, with 95% intervals."
    return Table(f"{arm.name} against …", note, ("against", "in all", *roles), tuple(rows))


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
