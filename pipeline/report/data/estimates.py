"""Means and paired differences of arms over groups and tasks, with 95% intervals from per-sample outcomes."""

import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.report.data.arms import ArmResult, read_arms
from pipeline.report.data.comparable import ComparableArms, GroupTask, make_benches
from pipeline.report.data.resamples import ACCURACY_RESAMPLES, resampled_means
from pipeline.report.data.run import PRE_TRAINED, CandidateRow, Run
from search.intervals import Array, Interval, TaskOutcomes, mean_interval, paired_difference, sample_means
from tasks.metrics import lower_is_better

#: Picks the candidate of a group that represents an arm: the chosen one, or one point of a curve.
Pick = Callable[[str], CandidateRow | None]


@dataclass(frozen=True)
class Average:
    """A mean over places, kept in parts, so that two means can be subtracted sample by sample.

    Attributes:
        parts: task -> (its share of the places, (N,) outcomes, averaged over the places of that task); one a prompt,
            the mean of its completions.
    """

    parts: Mapping[str, tuple[Fraction, Array]]

    @property
    def interval(self) -> Interval:
        """The mean, with its 95% interval."""
        return mean_interval(self.cells)

    @property
    def cells(self) -> list[TaskOutcomes]:
        """The outcomes of each task, weighted so that the mean over tasks of their means is the average."""
        return [TaskOutcomes(task, self._weighted(task)) for task in self.parts]

    def minus(self, other: "Average") -> Interval | None:
        """Return the paired difference; None if the two do not give every task the same share."""
        shares, other_shares = ({task: share for task, (share, _) in a.parts.items()} for a in (self, other))
        if shares != other_shares:
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
            ValueError: if a table of the run is missing or has another schema version.
        """
        run = Run.read(folder)
        return cls(run, read_arms(run))

    @cached_property
    def benches(self) -> tuple[ComparableArms, ...]:
        """The arms, grouped by the experts or tasks that they are averaged over: edits first, then merges."""
        return make_benches(self.run, self.arms)

    def bench(self, arm: ArmResult) -> ComparableArms | None:
        """Return the bench of an edit or merge; None if the arm has no scores."""
        return next((b for b in self.benches if any(a.name == arm.name for a in b.arms)), None)

    @cached_property
    def references(self) -> dict[tuple[str, bool, str], float]:
        """(task, is a target, split) -> the reference that normalises its score (paper, section 3)."""
        found: dict[tuple[str, bool, str], float] = {}
        for arm in (a for a in self.arms if a.kind != PRE_TRAINED):
            for candidate in arm.candidates:
                for (task, split), score in self.run.scored(candidate).items():
                    if score.normalised:
                        lower = lower_is_better(score.metric)
                        own = score.value * score.normalised if lower else score.value / score.normalised
                        found.setdefault((task, score.role == "target", split), own)
        return found

    def average(self, pick: Pick, places: Iterable[GroupTask], split: str, own: bool | None = None) -> Average | None:
        """Average over `places`; None if one of them was not scored, since a mean over fewer would mislead.

        Args:
            pick: returns the candidate of each group.
            places: the groups and tasks of the mean.
            split: val or test.
            own: None for the outcomes as they are; True to divide by the fine-tuned experts', False by the
                pre-trained model's accuracy, which count as known constants. Of bits per byte, the reference is divided
                by them.
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
        """Return the mean over `places`; None if one of them was not scored."""
        return self.interval(pick, places, split, None)

    def normalised(self, pick: Pick, places: Iterable[GroupTask], split: str, target: bool) -> Interval | None:
        """Return the mean of accuracy / reference; the references count as known constants."""
        return self.interval(pick, places, split, target)

    def interval(self, pick: Pick, places: Iterable[GroupTask], split: str, own: bool | None = None) -> Interval | None:
        """Return the interval of `average`; a report asks for most of them several times, and each is computed once."""
        places = tuple(places)
        key = _picked(pick, places), split, own
        if key not in self._intervals:
            found = self.average(pick, places, split, own)
            self._intervals[key] = found.interval if found else None
        return self._intervals[key]

    @cached_property
    def _intervals(self) -> dict[Hashable, Interval | None]:
        """What is averaged -> its interval."""
        return {}

    def difference(self, a: Pick, b: Pick, places: Iterable[GroupTask], split: str) -> Interval | None:
        """Return the mean of a - b on the same samples; None if either lacks a score."""
        places = tuple(places)
        key = _picked(a, places), _picked(b, places), split
        if key not in self._intervals:
            left, right = self.average(a, places, split), self.average(b, places, split)
            found = left.minus(right) if left and right else None
            lower = any(self.lower_is_better(place.task) for place in places)
            self._intervals[key] = replace(found, lower_is_better=lower) if found else None
        return self._intervals[key]

    def lower_is_better(self, task: str) -> bool:
        """Return whether a smaller value of a task is the better one."""
        return lower_is_better(self.run.metrics.get(task, ""))

    def resampled(self, candidate: CandidateRow | None, task: str) -> Array | None:
        """Return a candidate's mean on validation, (1 + ACCURACY_RESAMPLES,); None if it was not scored."""
        if task not in self._resampled:  # all candidates at once: drawing the samples takes most of the time
            kept = {recipe_id: o for (recipe_id, split), o in self.run.samples.get(task, {}).items() if split == "val"}
            self._resampled[task] = {}
            if kept:
                outcomes_AO = np.stack(list(kept.values())).astype(np.float64)
                means_SA = resampled_means(outcomes_AO, ACCURACY_RESAMPLES, zlib.crc32(task.encode()), self.run.draws)
                self._resampled[task] = dict(zip(kept, means_SA.T, strict=True))
        return None if candidate is None else self._resampled[task].get(candidate.recipe_id)

    @cached_property
    def _resampled(self) -> dict[str, dict[str, Array]]:
        """Task -> recipe id -> means."""
        return {}

    def _outcomes(self, pick: Pick, place: GroupTask, split: str, own: bool | None) -> Array | None:
        candidate = pick(place.group)
        outcomes = None if candidate is None else self.run.outcomes(candidate, place.task, split)
        if outcomes is None:
            return None
        reference = 1.0 if own is None else self.references.get((place.task, own, split))
        if not reference:
            return None
        wide = sample_means(outcomes, self.run.draws)
        if own is None or not self.lower_is_better(place.task):
            return wide / reference
        mean = wide.mean()  # reference / mean, to first order in the samples
        inverse: Array = reference / mean * (2 - wide / mean)
        return inverse


def _picked(pick: Pick, places: Iterable[GroupTask]) -> Hashable:
    """Return the tasks of `places`, each with the model that is picked there; None if there is none."""
    return tuple((place.task, None if (found := pick(place.group)) is None else found.recipe_id) for place in places)
