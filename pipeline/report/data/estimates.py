"""Means and paired differences of arms over groups and tasks, with 95% intervals from per-sample outcomes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.report.data.arms import ArmResult, read_arms
from pipeline.report.data.comparable import ComparableArms, GroupTask, make_benches
from pipeline.report.data.run import PRE_TRAINED, CandidateRow, Run
from search.intervals import Array, Interval, TaskOutcomes, mean_interval, paired_difference

#: Which candidate of a group stands for an arm: the chosen one, or one point of a curve.
Pick = Callable[[str], CandidateRow | None]


@dataclass(frozen=True)
class Average:
    """A mean over places as what it is made of, so that two of them can be subtracted sample by sample.

    Attributes:
        parts: task -> (its share of the places, (N,) outcomes, averaged over the places of that task).
    """

    parts: Mapping[str, tuple[Fraction, Array]]

    @property
    def interval(self) -> Interval:
        """The mean, with its 95% interval."""
        return mean_interval([TaskOutcomes(task, self._weighted(task)) for task in self.parts])

    def minus(self, other: "Average") -> Interval | None:
        """The paired difference; None where the two do not give every task the same share."""
        shares, theirs = ({task: share for task, (share, _) in a.parts.items()} for a in (self, other))
        if shares != theirs:
            return None
        return paired_difference([TaskOutcomes(task, self._weighted(task), other._weighted(task)) for task in shares])

    def _weighted(self, task: str) -> Array:
        share, outcomes_N = self.parts[task]
        return outcomes_N * float(share * len(self.parts))


@dataclass(frozen=True)
class Measure:
    """Averages over places, each place of equal weight, as in Table 1 of the paper."""

    run: Run
    arms: Sequence[ArmResult]

    @classmethod
    def read(cls, folder: Path) -> "Measure":
        """Read a run folder.

        Raises:
            ValueError: a table of the run is missing or of another schema version.
        """
        run = Run.read(folder)
        return cls(run, read_arms(run))

    @cached_property
    def benches(self) -> tuple[ComparableArms, ...]:
        """The arms by what they are averaged over: edits first, then merges."""
        return make_benches(self.run, self.arms)

    def bench(self, arm: ArmResult) -> ComparableArms | None:
        """The bench of an edit or merge; None where nothing of it was scored."""
        return next((b for b in self.benches if any(a.name == arm.name for a in b.arms)), None)

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

    def average(self, pick: Pick, places: Iterable[GroupTask], split: str, own: bool | None = None) -> Average | None:
        """Over `places`; None where one of them was not scored, since a mean over fewer would mislead.

        Args:
            pick: says the candidate of each group.
            places: what the mean runs over.
            split: val or test.
            own: None for the outcomes as they are; True to divide by the fine-tuned experts', False by the
                pre-trained model's accuracy, which count as known constants.
        """
        places = list(places)
        sums: dict[str, Array] = {}
        for place in places:
            outcomes_N = self._outcomes(pick, place, split, own)
            if outcomes_N is None:
                return None
            sums[place.task] = sums[place.task] + outcomes_N if place.task in sums else outcomes_N
        counts = Counter(place.task for place in places)
        parts = {task: (Fraction(n, len(places)), sums[task] / n) for task, n in counts.items()}
        return Average(parts) if parts else None

    def mean(self, pick: Pick, places: Iterable[GroupTask], split: str) -> Interval | None:
        """Mean over `places`; None where one of them was not scored."""
        found = self.average(pick, places, split)
        return found.interval if found else None

    def normalised(self, pick: Pick, places: Iterable[GroupTask], split: str, target: bool) -> Interval | None:
        """Mean of accuracy / reference; the references count as known constants."""
        found = self.average(pick, places, split, own=target)
        return found.interval if found else None

    def difference(self, a: Pick, b: Pick, places: Iterable[GroupTask], split: str) -> Interval | None:
        """Mean of a - b on the same samples; None where either was not scored somewhere."""
        places = list(places)
        left, right = self.average(a, places, split), self.average(b, places, split)
        return left.minus(right) if left and right else None

    def _outcomes(self, pick: Pick, place: GroupTask, split: str, own: bool | None) -> Array | None:
        candidate = pick(place.group)
        outcomes = None if candidate is None else self.run.outcomes(candidate, place.task, split)
        if outcomes is None:
            return None
        reference = 1.0 if own is None else self.references.get((place.task, own, split))
        return outcomes.astype(np.float64) / reference if reference else None
