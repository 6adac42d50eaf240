"""The comparison of a run with its baseline: paired tests over the samples, Holm's correction, verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.regress.pairs import Allowed, changes, paired
from pipeline.regress.snapshot import Snapshot, SnapshotKey
from pipeline.spec.thresholds import Regress, check_bounds
from search.intervals import Array, Interval, TaskOutcomes, paired_difference
from search.significance import detectable, holm, is_binary, mcnemar, sign_flip, unseen
from tasks.metrics import lower_is_better

Verdict = Literal["regressed", "improved", "equal", "no evidence"]
#: Decimals of means: floating-point noise must not decide whether a threshold is reached.
_DIGITS = 12
VERDICTS: tuple[Verdict, ...] = ("regressed", "improved", "equal", "no evidence")


@dataclass(frozen=True)
class BaselineComparison:
    """One arm on one task, against the baseline.

    Attributes:
        arm, role, task, metric: the compared mean; of an edit, over the experts that have the task in this role.
        now, before: means.
        difference: now - before with its interval, at 1 - level, not adjusted.
        p: of the paired test; adjusted: by Holm over all comparisons of the call.
        test: McNemar or sign flip.
        detectable: the smallest change that the test finds with probability 0.8, at the level of Holm's first step.
        tolerance: how far the mean may be worse.
        bound: the least allowed mean; of bits per byte, the largest; None without one.
        recipes: expert (or "") -> the recipe before and now, if the choice changed.
        verdict: as documented in docs/guides/regression.md.
    """

    arm: str
    role: str
    task: str
    metric: str
    now: float
    before: float
    difference: Interval
    p: float
    adjusted: float
    test: str
    detectable: float
    tolerance: float
    bound: float | None
    recipes: dict[str, tuple[str, str]]
    verdict: Verdict

    @property
    def out_of_bounds(self) -> bool:
        """Whether the mean itself is too low, or of bits per byte too high, independently of the baseline."""
        if self.bound is None:
            return False
        return self.now > self.bound if lower_is_better(self.metric) else self.now < self.bound


@dataclass(frozen=True)
class Regression:
    """A run compared with its baseline.

    Attributes:
        run, baseline: the two snapshots.
        level: of the whole call.
        comparisons: in the order of the run's tables.
        changes: the differences between the two, in words.
        left_out: the parts that could not be compared, in words.
    """

    run: Snapshot
    baseline: Snapshot
    level: float
    comparisons: Sequence[BaselineComparison]
    changes: Sequence[str]
    left_out: Sequence[str]

    def having(self, verdict: Verdict) -> list[BaselineComparison]:
        """Return the comparisons with this verdict."""
        return [c for c in self.comparisons if c.verdict == verdict]


def compare(run: Snapshot, baseline: Snapshot, regress: Regress, allowed: Allowed) -> Regression:
    """Compare a run with its baseline.

    Example:
        >>> run, baseline = read_place("runs/nightly"), read_place("baselines/nightly.parquet")
        >>> found = compare(run, baseline, Regress(tolerance=0.02), Allowed(only_common=True))
        >>> [c.task for c in found.having("regressed")]
        []

    Args:
        run: the snapshot of a finished run.
        baseline: the snapshot of another run, or of a baseline's file.
        regress: tolerances, minima and level.
        allowed: the differences that are allowed.

    Raises:
        ValueError: if data, arms or tasks differ, nothing is left to compare, or a bound does not fit its metric.
    """
    run, baseline, keys, left_out = common_cells(run, baseline, regress, allowed)
    level = regress.level / len(keys)
    tested = [_tested(run.mean_N(key), baseline.mean_N(key), level) for key in keys]
    adjusted = holm([p for p, _ in tested])
    found = []
    for key, (p, test), corrected in zip(keys, tested, adjusted, strict=True):
        found.append(_comparison(run, baseline, key, regress, (p, corrected, test, level)))
    return Regression(run, baseline, regress.level, found, changes(baseline, run), left_out)


def common_cells(
    run: Snapshot, baseline: Snapshot, regress: Regress, allowed: Allowed
) -> tuple[Snapshot, Snapshot, Sequence[SnapshotKey], Sequence[str]]:
    """Return both without what the other did not need to score, what is compared, and what is left out, in words.

    Raises:
        ValueError: as `compare`.
    """
    run, baseline = run.used_by(baseline), baseline.used_by(run)
    keys, left_out = paired(run, baseline, regress, allowed)
    check_bounds(regress, {(arm, task): run.metric((arm, role, task)) for arm, role, task in keys})
    return run, baseline, keys, left_out


def _tested(now_N: Array, before_N: Array, level: float) -> tuple[float, str]:
    if is_binary(now_N) and is_binary(before_N):
        return mcnemar(now_N, before_N), "McNemar"
    # Enough permutations for the smallest possible p-value to be a twentieth of the level of Holm's first step.
    return sign_flip(now_N, before_N, max(9_999, math.ceil(20 / level))), "sign flip"


def _comparison(
    run: Snapshot, baseline: Snapshot, key: SnapshotKey, regress: Regress, tested: tuple[float, float, str, float]
) -> BaselineComparison:
    p, adjusted, test, level = tested
    (arm, role, task), now_N, before_N = key, run.mean_N(key), baseline.mean_N(key)
    metric = run.metric(key)
    tolerance, bound = limits(regress, key, metric)
    difference = paired_difference([TaskOutcomes(task, now_N, before_N)], level=1 - regress.level)
    gain, lowest = (
        (-difference.value, -difference.high) if lower_is_better(metric) else (difference.value, difference.low)
    )
    now, before = (round(float(mean_N.mean()), _DIGITS) for mean_N in (now_N, before_N))
    least = min(lowest, 0.0 if _same(run, baseline, key) else -unseen(now_N, before_N, regress.level))
    verdict = _verdict(gain, least, adjusted <= regress.level, tolerance)
    new, old = run.cells[key], baseline.cells[key]
    recipes = {g: (old[g].recipe, new[g].recipe) for g in new if new[g].recipe != old[g].recipe}
    numbers = (now, before, difference, p, adjusted, test, detectable(now_N, before_N, level))
    found = BaselineComparison(arm, role, task, metric, *numbers, tolerance, bound, recipes, verdict)
    return replace(found, verdict="regressed") if found.out_of_bounds else found


def limits(regress: Regress, key: SnapshotKey, metric: str) -> tuple[float, float | None]:
    """Return the tolerance and the bound of a comparison: a minimum, or of bits per byte a maximum."""
    arm, _, task = key
    tolerance, minimum = regress.threshold(arm, task)
    return tolerance, regress.maximum(arm, task) if lower_is_better(metric) else minimum


def _same(run: Snapshot, baseline: Snapshot, key: SnapshotKey) -> bool:
    """Whether both are the same models, evaluated in the same way, so that no sample can tell them apart."""
    weights = [{group: row.recipe_id for group, row in place.cells[key].items()} for place in (run, baseline)]
    return weights[0] == weights[1] and run.about["numerics"] == baseline.about["numerics"]


def _verdict(value: float, least: float, significant: bool, tolerance: float) -> Verdict:
    if significant and value < -tolerance:
        return "regressed"
    if significant and value > tolerance:
        return "improved"
    return "equal" if least >= -tolerance else "no evidence"
