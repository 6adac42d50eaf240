"""Means and paired differences of arms over groups and tasks, with 95% intervals from per-sample outcomes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.report.arms import Arm
from pipeline.report.data import PRE_TRAINED, Candidate, Outcomes, Run
from search.intervals import Cell, Interval, mean_interval, paired_difference

ROLES = ("target", "control", "ood")
#: Which candidate of a group stands for an arm: the chosen one, or one point of a curve.
Pick = Callable[[str], Candidate | None]


@dataclass(frozen=True, slots=True)
class Place:
    """One (group, task) that an average runs over: an edit's expert, or "" for merges, and a task it is scored on."""

    group: str
    task: str


@dataclass(frozen=True)
class Measure:
    """Averages over places, each place of equal weight, as in Table 1 of the paper."""

    run: Run
    arms: Sequence[Arm]

    @cached_property
    def places(self) -> dict[tuple[str, str], tuple[Place, ...]]:
        """(kind, role) -> the places where a task has that role, in the order of the spec's tasks, then of groups."""
        order = {task: i for i, task in enumerate(self.run.task_names)}
        found: dict[tuple[str, str], dict[Place, None]] = {}
        # The plain experts are always all there, as references: a mean runs over those that were edited, if any were.
        edited = {group for arm in self.arms if arm.kind == "edit" and arm.role != "plain" for group in arm.groups}
        for arm in self.arms:
            for candidate in (c for c in arm.candidates if not edited or arm.kind != "edit" or c.group in edited):
                for (task, _), score in self.run.scored(candidate).items():
                    found.setdefault((arm.kind, score.role), {})[Place(candidate.group, task)] = None
        return {key: tuple(sorted(places, key=lambda p: order[p.task])) for key, places in found.items()}

    def roles(self, kind: str) -> list[str]:
        """The roles that occur among arms of this kind."""
        return [role for role in ROLES if self.places.get((kind, role))]

    @cached_property
    def references(self) -> dict[tuple[str, bool, str], float]:
        """(task, is a target, split) -> what its score is divided by to be normalised (paper, section 3)."""
        found: dict[tuple[str, bool, str], float] = {}
        for arm in (a for a in self.arms if a.kind != PRE_TRAINED):
            for candidate in arm.candidates:
                for (task, split), score in self.run.scored(candidate).items():
                    if score.normalised:
                        found.setdefault((task, score.role == "target", split), score.value / score.normalised)
        return found

    def mean(self, pick: Pick, places: Iterable[Place], split: str) -> Interval | None:
        """Mean over `places`; None where one of them was not scored, since a mean over fewer would mislead."""
        found = [(place.task, self._outcomes(pick, place, split)) for place in places]
        cells = [Cell(task, outcomes) for task, outcomes in found if outcomes is not None]
        return mean_interval(cells) if cells and len(cells) == len(found) else None

    def normalised(self, pick: Pick, places: Iterable[Place], split: str, target: bool) -> Interval | None:
        """Mean of accuracy / reference; the references count as known constants."""
        cells, places = [], list(places)
        for place in places:
            outcomes, reference = self._outcomes(pick, place, split), self.references.get((place.task, target, split))
            if outcomes is not None and reference:
                cells.append(Cell(place.task, outcomes / reference))
        return mean_interval(cells) if cells and len(cells) == len(places) else None

    def difference(self, a: Pick, b: Pick, places: Iterable[Place], split: str) -> Interval | None:
        """Mean of a - b on the same samples; None where either was not scored somewhere."""
        cells, places = [], list(places)
        for place in places:
            left, right = self._outcomes(a, place, split), self._outcomes(b, place, split)
            if left is not None and right is not None:
                cells.append(Cell(place.task, left, right))
        return paired_difference(cells) if cells and len(cells) == len(places) else None

    def _outcomes(self, pick: Pick, place: Place, split: str) -> Outcomes | None:
        candidate = pick(place.group)
        return None if candidate is None else self.run.outcomes(candidate, place.task, split)
