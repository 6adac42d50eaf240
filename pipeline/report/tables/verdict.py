"""The headline: each LiNeS arm on test against the plain arms and against its matched controls, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.data.arms import CONTROL_WORDS, ArmResult, opponents
from pipeline.report.data.comparable import ComparableArms
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import BITS, Run
from pipeline.report.tables.forest import Forest, forest, smallest_found
from pipeline.report.tables.table import Table, TableCell, Units, lead, role_units
from search.intervals import Interval

_IN_BITS = {"control": "control", "ood": "OOD"}
#: What a note says of columns in bits per byte.
LOWER = "Bits per byte: lower is better."
#: Names of columns; the targets of a merge are the tasks of all its experts.
ROLE_WORDS = {
    ("edit", "target"): "target",
    ("edit", "control"): "control",
    ("edit", "ood"): "OOD",
    ("merge", "target"): "mean accuracy",
    ("merge", "control"): "control",
    ("merge", "ood"): "OOD",
    **{(kind, f"{role}{BITS}"): f"{word}{BITS}" for kind in ("edit", "merge") for role, word in _IN_BITS.items()},
}
#: What one or several controls do that were not beaten, after: depth is not shown to matter.
UNBEATEN = {
    "tie": ("ties with it", "tie with it"),
    "worse": ("beats it", "beat it"),
    "trade-off": ("beats it on one side", "beat it on one side"),
}
NOT_ADJUSTED = (
    "They are not adjusted for the number of comparisons. A difference whose interval contains 0 is called a tie."
)


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """A LiNeS arm against one other arm: a paired difference for each role."""

    other: ArmResult
    differences: tuple[tuple[str, Interval], ...]

    @property
    def word(self) -> str:
        """Better or worse if no role contradicts it, tie if all tie, else trade-off."""
        words = {interval.verdict for _, interval in self.differences} - {"tie"}
        return "trade-off" if len(words) > 1 else next(iter(words), "tie")


@dataclass(frozen=True, slots=True)
class ArmVerdict:
    """The sentences about one LiNeS arm, and the table of its comparisons.

    Attributes:
        arm: the LiNeS arm.
        sentences: whether depth matters, then each comparison.
        table: of the comparisons.
        facts: when and on what it was measured, and how small a difference would have been found; "" for rewards.
        forest: the differences drawn; None for rewards.
    """

    arm: ArmResult
    sentences: tuple[str, ...]
    table: Table
    facts: str = ""
    forest: Forest | None = None


def verdicts(measure: Measure) -> list[ArmVerdict]:
    """Return one verdict for each LiNeS arm that has test scores."""
    return [v for arm in measure.arms if arm.role == "lines" and (v := _verdict(arm, measure))]


def verdict_note(run: Run) -> str:
    """Return how the verdicts were made, and how to read their intervals."""
    use = "Test split, used once, to score what validation chose"
    if every := [name for name, arm in run.provenance["spec"]["arms"].items() if arm["test"] == "every"]:
        use += f" (arms with `test: every` had each candidate scored on it: {', '.join(every)})"
    return (
        f"{use}. The brackets are 95% intervals of the paired difference, by bootstrap over the test samples. They "
        f"hold for these tasks and checkpoints, not for another training run. {NOT_ADJUSTED}"
    )


def _verdict(arm: ArmResult, measure: Measure) -> ArmVerdict | None:
    bench = measure.bench(arm)
    rivals = opponents(arm, bench.arms) if bench else []
    comparisons = [c for other in rivals if bench and (c := _compare(arm, other, measure, bench)).differences]
    if not comparisons:
        return None
    plain = [c for c in comparisons if c.other.role == "plain"]
    controls = _controls(arm, comparisons)
    against = [f"Against {c.other.name}: {_outcome(c)}." for c in plain]
    return ArmVerdict(
        arm,
        (conclusion(arm, controls), *against, *standing(controls)),
        _table(arm, comparisons, measure.run),
        _facts(arm, comparisons, measure.run),
        forest(comparisons, Units(measure.run.percent)),
    )


def _controls(arm: ArmResult, comparisons: Sequence[ArmComparison]) -> list[ArmComparison]:
    """Return its matched controls; a plain arm by its method whose coefficient was searched is the tuned constant."""
    own = [c for c in comparisons if c.other.control_of]
    if not own or any(c.other.role == "constant" for c in own):
        return own
    plain = [c for c in comparisons if c.other.role == "plain" and c.other.methods & arm.methods]
    return [c for c in plain if any("alpha" in candidate.point for candidate in c.other.candidates)] + own


def _facts(arm: ArmResult, comparisons: Sequence[ArmComparison], run: Run) -> str:
    by_role = dict[str, list[Interval]]()
    for role, interval in (difference for c in comparisons for difference in c.differences):
        by_role.setdefault(role, []).append(interval)
    samples = max(interval.n for found in by_role.values() for interval in found)
    sizes = []
    for role, found in by_role.items():
        units = role_units(run, role)
        sizes.append(f"{units.number(smallest_found(found))}{units.points} on {role}")
    day = str(run.provenance.get("finished") or run.provenance.get("started", ""))[:10]
    objectives = run.provenance["objectives"].get(arm.name, ())
    chosen = f"Chosen on validation by {' and '.join(objectives)}. " if objectives else ""
    return (
        f"{chosen}{samples:,} test samples{day and f', {day}'}. With a probability of 80% each comparison would have "
        f"found a true difference of {_list(sizes)}; smaller ones may look like ties."
    )


def _compare(arm: ArmResult, other: ArmResult, measure: Measure, bench: ComparableArms) -> ArmComparison:
    found = []
    for role in bench.roles:
        interval = measure.difference(arm.chosen, other.chosen, bench.over(role), "test")
        if interval is not None:
            found.append((ROLE_WORDS[arm.kind, role], interval))
    return ArmComparison(other, tuple(found))


def _outcome(comparison: ArmComparison) -> str:
    """In words: better on control, tied on target. The numbers are in the table."""
    found = []
    for verdict in ("better", "worse", "tie"):
        roles = [role for role, interval in comparison.differences if interval.verdict == verdict]
        found += [f"{'tied' if verdict == 'tie' else verdict} on {_list(roles)}"] if roles else []
    return ", ".join(found)


def _control_word(control: ArmComparison) -> str:
    return CONTROL_WORDS.get(control.other.role, CONTROL_WORDS["constant"])


def conclusion(arm: ArmResult, controls: Sequence[ArmComparison]) -> str:
    """Return whether depth (and components) matter: only if every matched control is beaten."""
    what = "depth and components" if arm.has_components else "depth"
    if not controls:
        return f"The run has no matched controls, so it cannot separate the effect of {what} from mere shrinking."
    unbeaten = {word: [_control_word(c) for c in controls if c.word == word] for word in UNBEATEN}
    rest = [f"the {_list(names)} {UNBEATEN[word][len(names) > 1]}" for word, names in unbeaten.items() if names]
    if not rest:
        return f"Here the profile over {what} matters: it beats every matched control."
    return f"Here the profile over {what} is not shown to matter: {'; '.join(rest)}."


def standing(controls: Sequence[ArmComparison]) -> list[str]:
    """Return which controls are beaten, if only some are."""
    beaten = [_control_word(c) for c in controls if c.word == "better"]
    some = beaten and len(beaten) < len(controls)
    return [f"Of its {len(controls)} matched controls it beats the {_list(beaten)}."] if some else []


def _table(arm: ArmResult, comparisons: Sequence[ArmComparison], run: Run) -> Table:
    roles = list(dict.fromkeys(role for c in comparisons for role, _ in c.differences))
    rows = []
    for c in comparisons:
        by_role = dict(c.differences)
        cells = [role_units(run, role).difference(by_role.get(role)) for role in roles]
        what = CONTROL_WORDS.get(c.other.role, "no scaling over depth")
        rows.append((lead(c.other, f"({what})"), *([TableCell(c.word, tone=c.word)] if len(roles) > 1 else []), *cells))
    unit = Units(run.percent).points and " in points"
    lower = f" {LOWER}" * any(role.endswith(BITS) for role in roles)
    note = f"Test split, paired differences{unit}: {arm.name} minus the row, with 95% intervals.{lower}"
    return Table(
        f"{arm.name} against …", note, ("against", *(["in all"] if len(roles) > 1 else []), *roles), tuple(rows)
    )


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
