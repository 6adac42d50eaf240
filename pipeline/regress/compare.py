"""The comparisons of a run with its baseline: paired tests over the samples, Holm's correction, verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.regress.pairs import Leave, changes, paired
from pipeline.regress.snapshot import Snapshot, SnapshotKey
from pipeline.spec.thresholds import Regress
from search.intervals import Array, Interval, TaskOutcomes, paired_difference
from search.significance import detectable, holm, is_binary, mcnemar, sign_flip, unseen

Verdict = Literal["regressed", "improved", "equal", "no evidence"]
#: What floating point adds to a mean must not decide whether a threshold is reached.
_DIGITS = 12
VERDICTS: tuple[Verdict, ...] = ("regressed", "improved", "equal", "no evidence")


@dataclass(frozen=True)
class BaselineComparison:
    """One arm on one task, against the baseline.

    Attributes:
        arm, role, task, metric: what is compared; of an edit, the mean over experts that have the task in that role.
        now, before: means.
        difference: now - before with its interval, at 1 - level, not adjusted.
        p: of the paired test; adjusted: by Holm over all comparisons of the call.
        test: McNemar or sign flip.
        detectable: the smallest change that the test would find with chance 0.8, as strict as the first step of Holm's.
        tolerance, minimum: what was held against it.
        recipes: expert (or "") -> the recipe before and now, where the choice changed.
        verdict: see `lines regress`.
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
    minimum: float | None
    recipes: dict[str, tuple[str, str]]
    verdict: Verdict

    @property
    def below_minimum(self) -> bool:
        """Whether the mean itself is too low, whatever the baseline."""
        return self.minimum is not None and self.now < self.minimum


@dataclass(frozen=True)
class Regression:
    """A run held against its baseline.

    Attributes:
        run, baseline: what was compared.
        level: of the whole call.
        comparisons: in the order of the run's tables.
        changes: what differs between the two, in words.
        left_out: what could not be compared, in words.
    """

    run: Snapshot
    baseline: Snapshot
    level: float
    comparisons: Sequence[BaselineComparison]
    changes: Sequence[str]
    left_out: Sequence[str]

    def having(self, verdict: Verdict) -> list[BaselineComparison]:
        """The comparisons that came to this verdict."""
        return [c for c in self.comparisons if c.verdict == verdict]


def compare(run: Snapshot, baseline: Snapshot, regress: Regress, leave: Leave) -> Regression:
    """Hold a run against its baseline.

    Raises:
        ValueError: data, arms or tasks differ, or nothing is left to compare.
    """
    keys, left_out = paired(run, baseline, regress, leave)
    level = regress.level / len(keys)
    tested = [_tested(run.mean_N(key), baseline.mean_N(key), level) for key in keys]
    adjusted = holm([p for p, _ in tested])
    found = []
    for key, (p, test), corrected in zip(keys, tested, adjusted, strict=True):
        found.append(_comparison(run, baseline, key, regress, (p, corrected, test, level)))
    return Regression(run, baseline, regress.level, found, changes(baseline, run), left_out)


def _tested(now_N: Array, before_N: Array, level: float) -> tuple[float, str]:
    if is_binary(now_N) and is_binary(before_N):
        return mcnemar(now_N, before_N), "McNemar"
    # So many permutations that the smallest possible p-value is a twentieth of what Holm's first step asks for.
    return sign_flip(now_N, before_N, max(9_999, math.ceil(20 / level))), "sign flip"


def _comparison(
    run: Snapshot, baseline: Snapshot, key: SnapshotKey, regress: Regress, tested: tuple[float, float, str, float]
) -> BaselineComparison:
    p, adjusted, test, level = tested
    (arm, role, task), now_N, before_N = key, run.mean_N(key), baseline.mean_N(key)
    tolerance, minimum = regress.threshold(arm, task)
    difference = paired_difference([TaskOutcomes(task, now_N, before_N)], level=1 - regress.level)
    now, before = (round(float(mean_N.mean()), _DIGITS) for mean_N in (now_N, before_N))
    least = min(difference.low, 0.0 if _same(run, baseline, key) else -unseen(now_N, before_N, regress.level))
    verdict = _verdict(difference.value, least, adjusted <= regress.level, tolerance)
    if minimum is not None and now < minimum:
        verdict = "regressed"
    mine, its = run.cells[key], baseline.cells[key]
    recipes = {g: (its[g].recipe, mine[g].recipe) for g in mine if mine[g].recipe != its[g].recipe}
    numbers = (now, before, difference, p, adjusted, test, detectable(now_N, before_N, level))
    metric = next(iter(mine.values())).metric
    return BaselineComparison(arm, role, task, metric, *numbers, tolerance, minimum, recipes, verdict)


def _same(run: Snapshot, baseline: Snapshot, key: SnapshotKey) -> bool:
    """Whether they are the same models, evaluated in the same way: beyond these samples they do not differ either."""
    weights = [{group: row.recipe_id for group, row in place.cells[key].items()} for place in (run, baseline)]
    return weights[0] == weights[1] and run.about["numerics"] == baseline.about["numerics"]


def _verdict(value: float, least: float, significant: bool, tolerance: float) -> Verdict:
    if significant and value < -tolerance:
        return "regressed"
    if significant and value > tolerance:
        return "improved"
    # A loss of more than the tolerance is excluded by these samples, or it is not.
    return "equal" if least >= -tolerance else "no evidence"
