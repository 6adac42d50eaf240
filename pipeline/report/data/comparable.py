"""Which arms can share a table: those whose means are over the same experts, or over the same target tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.run import BITS, PRE_TRAINED, Run

ROLES = ("target", "control", "ood", f"control{BITS}", f"ood{BITS}")
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupTask:
    """One (group, task) of an average: an edit's expert, or "" for merges, and a task that it is scored on."""

    group: str
    task: str


@dataclass(frozen=True)
class ComparableArms:
    """Arms that are compared with each other.

    Attributes:
        kind: edit or merge.
        name: "" if it is the only bench of its kind, else what distinguishes it, such as "14 tasks".
        arms: the pre-trained model first.
        places: role -> the places of its mean, in the order of the spec's tasks, then of groups.
    """

    kind: str
    name: str
    arms: Sequence[ArmResult]
    places: Mapping[str, tuple[GroupTask, ...]]

    def over(self, role: str) -> tuple[GroupTask, ...]:
        """Return the places of a role; none if no task has it."""
        return self.places.get(role, ())

    def normalised_over(self, role: str) -> tuple[GroupTask, ...]:
        """Return the places of a role with those in bits per byte: normalised values have a mean together."""
        return (*self.over(role), *self.over(f"{role}{BITS}"))

    @property
    def roles(self) -> list[str]:
        """The roles that occur."""
        return [role for role in ROLES if self.over(role)]

    @property
    def experts(self) -> list[str]:
        """The edited experts; [""] for merges."""
        return list(dict.fromkeys(place.group for place in self.over("target")))

    def titled(self, title: str) -> str:
        """Return a title with the name of the bench."""
        return f"{title} ({self.name})" if self.name else title


def own_places(run: Run, arm: ArmResult, role: str) -> tuple[GroupTask, ...]:
    """Return every place of an arm that has the role."""
    order = {task: i for i, task in enumerate(run.task_names)}
    found = {
        GroupTask(candidate.group, task): None
        for candidate in arm.candidates
        for (task, _), score in run.scored(candidate).items()
        if score.shown_role == role
    }
    return tuple(sorted(found, key=lambda place: order[place.task]))


def members(run: Run, arm: ArmResult) -> list[str]:
    """Return the experts that an arm edits, or that have a weight in a candidate of a merge."""
    experts = [str(expert) for expert in run.provenance["experts"]]
    if arm.kind == "edit":
        return list(arm.groups)
    # A coefficient of 0 is theta0, whose recipe has no weights.
    weights = [c.recipe.weights or (1,) * len(experts) for c in arm.candidates if c.recipe.method != "zero"]
    return [expert for i, expert in enumerate(experts) if any(w[i] for w in weights)]


def make_benches(run: Run, arms: Sequence[ArmResult]) -> tuple[ComparableArms, ...]:
    """Return one bench for each set of edited experts, and one for each set of merged target tasks."""
    first = [a for a in arms if a.kind == PRE_TRAINED]
    edits, merges = _edits([a for a in arms if a.kind == "edit"]), _merges(run, arms)
    found = []
    for kind, sets, what in (("edit", edits, "expert"), ("merge", merges, "task")):
        names = _names(list(sets), what)
        for name, (members_of, parts) in zip(names, sets.items(), strict=True):
            found.append(ComparableArms(kind, name, [*first, *parts], _places(run, parts, members_of, kind)))
    return tuple(found)


def _edits(arms: Sequence[ArmResult]) -> dict[Names, list[ArmResult]]:
    """Edited experts -> arms. Plain experts are always complete, as references: they join every bench they cover."""
    leaders = {arm.name: arm for arm in arms}
    own = {arm.name: leaders.get(arm.control_of, arm).groups for arm in arms}
    plain = [arm for arm in arms if arm.role == "plain"]
    sets = {own[arm.name]: None for arm in arms if arm not in plain}
    alone = [own[arm.name] for arm in plain if not any(set(s) <= set(own[arm.name]) for s in sets)]
    return {
        groups: [a for a in arms if own[a.name] == groups or (a in plain and set(groups) <= set(a.groups))]
        for groups in (*sets, *dict.fromkeys(alone))
    }


def _merges(run: Run, arms: Sequence[ArmResult]) -> dict[Names, list[ArmResult]]:
    """Target tasks -> arms; merges without scores are left out, since they have no row."""
    found: dict[Names, list[ArmResult]] = {}
    for arm in (a for a in arms if a.kind == "merge"):
        targets = tuple(dict.fromkeys(place.task for place in own_places(run, arm, "target")))
        if targets:
            found.setdefault(targets, []).append(arm)
    return found


def _places(run: Run, arms: Iterable[ArmResult], names: Names, kind: str) -> dict[str, tuple[GroupTask, ...]]:
    order = {task: i for i, task in enumerate(run.task_names)}
    found: dict[str, dict[GroupTask, None]] = {role: {} for role in ROLES}
    for arm in arms:
        for role in ROLES:
            own = own_places(run, arm, role)
            found[role] |= dict.fromkeys(place for place in own if kind == "merge" or place.group in names)
    return {role: tuple(sorted(places, key=lambda place: order[place.task])) for role, places in found.items()}


def _names(sets: Sequence[Names], what: str) -> list[str]:
    """Their numbers if these differ, else their names."""
    if len(sets) < 2:
        return ["" for _ in sets]
    counts = [len(names) for names in sets]
    if len(set(counts)) == len(counts):
        return [f"{count} {what}{'s' * (count != 1)}" for count in counts]
    return [", ".join(names[:4]) + ", …" * (len(names) > 4) for names in sets]
