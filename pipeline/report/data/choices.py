"""What validation says of its choices, corrected for having chosen the best, and the drops to test.

Shape legend: R resamples, K candidates of one arm and group.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.run import PRE_TRAINED, CandidateRow, Run
from search.intervals import Array, sample_means
from search.objective_arrays import objective_array, role_metric_arrays
from search.objectives import METRICS, Objective, Role
from search.winners_curse import BagMeans, Choice, Prediction, predict
from tasks.metrics import lower_is_better

#: Fewer samples of a task leave too few out.
_FEWEST = 10
#: An objective that is computed again from samples is the recorded one, up to rounding.
_SAME = 1e-6


@dataclass(frozen=True)
class CorrectedChoice:
    """The choice of one arm; of an edit, the mean over its experts.

    Attributes:
        arm: the arm.
        candidates: number of candidates that were scored in full, over all groups.
        stopped: number of candidates that were stopped, and that no resample can choose.
        predicted: the sum of objectives, corrected, and its drop to test; None if they cannot be computed.
        reason: why they cannot be computed, or "".
        measured: the drop that test shows, with the references of validation; None before test is read.
    """

    arm: ArmResult
    candidates: int
    stopped: int
    predicted: Prediction | None
    reason: str = ""
    measured: float | None = None


def corrected_choices(run: Run, arms: Sequence[ArmResult]) -> list[CorrectedChoice]:
    """Return one for each arm in which validation chose among several candidates."""
    bags = _Bags(run)
    searched = [arm for arm in arms if arm.kind != PRE_TRAINED and any(c.chosen for c in arm.candidates)]
    return [_corrected(run, arm, bags) for arm in searched if len(arm.candidates) > len(arm.groups)]


def _corrected(run: Run, arm: ArmResult, bags: "_Bags") -> CorrectedChoice:
    full = [c for c in arm.candidates if c.objectives is not None]
    counts = (arm, len(full), sum(c.stopped for c in arm.candidates))
    try:
        groups = [_Group(run, arm, [c for c in full if c.group == group]) for group in arm.groups]
        found = predict([group.choice(bags) for group in groups], bags.samples(groups[0].tasks))
        drops = [group.measured_drop() for group in groups]
    except _UnknownError as error:
        return CorrectedChoice(*counts, None, str(error))
    known = [drop for drop in drops if drop is not None]
    return CorrectedChoice(*counts, found, "", float(np.mean(known)) if len(known) == len(drops) else None)


class _UnknownError(Exception):
    """The tables do not hold what the correction needs; the message says what."""


class _Bags:
    """The resamples of each task's validation samples, which all candidates share."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._sizes: Mapping[str, Mapping[str, int]] = {t["name"]: t["n"] for t in run.provenance["tasks"]}
        self._known: dict[str, tuple[BagMeans, dict[str, int]]] = {}

    def samples(self, tasks: Sequence[str]) -> int:
        return sum(self._of(task)[0].n for task in tasks)

    def means(self, task: str, candidates: Sequence[CandidateRow]) -> tuple[Array, Array, Array, Array]:
        """Return means (1, K), in bags, left out of them, and elsewhere (R, K each)."""
        bag, places = self._of(task)
        if missing := [c for c in candidates if c.recipe_id not in places]:
            raise _UnknownError(f"no outcomes of single samples of {missing[0].recipe_id} on {task} are kept")
        here = [places[c.recipe_id] for c in candidates]
        test = max(1, self._sizes[task]["test"] // self._run.draws)
        return bag.mean_A[None, here], bag.bag_RA[:, here], bag.left_out_RA[:, here], bag.elsewhere(test)[:, here]

    def _of(self, task: str) -> tuple[BagMeans, dict[str, int]]:
        if task not in self._known:
            kept = {recipe: o for (recipe, split), o in self._run.samples.get(task, {}).items() if split == "val"}
            if not kept:
                raise _UnknownError(f"no outcomes of single samples on {task} are kept, only their sums")
            outcomes_AN = np.stack([sample_means(o, self._run.draws) for o in kept.values()])
            if outcomes_AN.shape[1] < _FEWEST:
                raise _UnknownError(f"{task} has {outcomes_AN.shape[1]} samples; {_FEWEST} are the fewest")
            bag = BagMeans.of(outcomes_AN, zlib.crc32(f"choices of {task}".encode()))
            self._known[task] = bag, {recipe: place for place, recipe in enumerate(kept)}
        return self._known[task]


@dataclass(frozen=True)
class _Group:
    """The candidates of an arm and group that were scored in full."""

    run: Run
    arm: ArmResult
    candidates: Sequence[CandidateRow]

    @cached_property
    def chosen(self) -> CandidateRow:
        found = next((c for c in self.candidates if c.chosen), None)
        if found is None:
            raise _UnknownError("a group has no choice")
        return found

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Validation task -> role."""
        scored = self.run.scored(self.chosen).items()
        return {task: score.role for (task, split), score in scored if split == "val"}  # type: ignore[misc]

    @property
    def tasks(self) -> list[str]:
        return list(self.roles)

    @cached_property
    def references(self) -> dict[str, float]:
        """Task -> the reference that normalises its scores on validation."""
        found = {}
        for candidate in self.candidates:
            for (task, split), score in self.run.scored(candidate).items():
                if split == "val" and score.normalised and task not in found:
                    lower = lower_is_better(score.metric)
                    found[task] = score.value * score.normalised if lower else score.value / score.normalised
        if missing := [task for task in self.roles if task not in found]:
            raise _UnknownError(f"no reference of {missing[0]}")
        return found

    @cached_property
    def objectives(self) -> list[Objective]:
        try:
            return [Objective.parse(text, None, METRICS) for text in self.run.provenance["objectives"][self.arm.name]]
        except (KeyError, ValueError):
            raise _UnknownError("its objective is not one of accuracies") from None

    def values(self, means: Mapping[str, Array]) -> Array:
        """Return the sum of objectives, by which validation chooses."""
        lower = [task for task in means if lower_is_better(self.run.metrics[task])]
        with np.errstate(divide="ignore"):
            metrics = role_metric_arrays(means, self.roles, self.references, lower)
        total: Array = np.sum([objective_array(objective, metrics) for objective in self.objectives], axis=0)
        return total

    def choice(self, bags: _Bags) -> Choice:
        parts = {task: bags.means(task, self.candidates) for task in self.roles}
        if any(self.run.metrics[task] == "reward" for task in self.roles):
            raise _UnknownError("it is of rewards")
        value, bag, left_out, elsewhere = (self.values({t: p[i] for t, p in parts.items()}) for i in range(4))
        recorded = [sum(c.objectives or ()) for c in self.candidates]
        if not np.allclose(value[0], recorded, rtol=_SAME, atol=_SAME):
            raise _UnknownError("the recorded objectives are not those of the kept samples")
        return Choice.of(np.asarray(recorded), bag, left_out, elsewhere)

    def measured_drop(self) -> float | None:
        """Return the value on test minus that on validation, with the references of validation for both."""
        scored = self.run.scored(self.chosen)
        both = {split: {t: s.value for (t, at), s in scored.items() if at == split} for split in ("val", "test")}
        if not set(self.roles) <= set(both["test"]):
            return None
        val, test = (self.values({t: np.array([both[s][t]]) for t in self.roles}) for s in ("val", "test"))
        return float(test[0] - val[0])
