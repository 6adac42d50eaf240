"""The points of a run of rewards: every arm's mean rewards on one split, as measured and resampled.

Shape legend: P points of an arm, K rewards, S = 1 + R with the measurement first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.clouds import Cloud
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import describe
from pipeline.report.data.resamples import REWARD_RESAMPLES, resampled_means
from pipeline.report.data.run import PRE_TRAINED, CandidateRow, Run
from pipeline.report.tables.table import Units
from search.pareto import Array


@dataclass(frozen=True)
class SoupScene:
    """All points of a run on one split; the objectives of a cloud are the K mean rewards.

    Attributes:
        run: the run.
        rewards: K names.
        split: test, or val if not every arm was scored in full on test.
        draws: completions of each prompt.
        prompts: number of prompts.
        sft: the model that the policies start from; None if it was not scored.
        policies: the unmodified policies; None if none was scored.
        soups: one for each arm of merges.
        others: arms that edit one policy at a time.
    """

    run: Run
    rewards: tuple[str, ...]
    split: str
    draws: int
    prompts: int
    sft: Cloud | None
    policies: Cloud | None
    soups: Sequence[Cloud]
    others: Sequence[Cloud]

    def units(self, reward: str) -> Units:
        """Return how a reward's values are shown: as per cent if they are accuracies."""
        return Units(self.run.metrics.get(reward) == "accuracy")

    def outcomes(self, candidate: CandidateRow, reward: str) -> Array | None:
        """Return the rewards of a candidate's completions, prompt by prompt, on the split of the scene."""
        found = self.run.outcomes(candidate, reward, self.split)
        return None if found is None else found.astype(np.float64)


def is_soup(run: Run) -> bool:
    """Return whether the run's tasks are rewards of the same completions, and at least two of them.

    A run of accuracies alone is like any other, unless it has several completions of a prompt: these are not
    independent samples.
    """
    generation = run.provenance["spec"].get("generation")
    if not isinstance(generation, Mapping) or len(rewards_of(run)) < 2:
        return False
    return not (run.metrics and run.percent) or run.draws > 1


def rewards_of(run: Run) -> tuple[str, ...]:
    """Return the rewards in the order of the spec."""
    return tuple(str(task["name"]) for task in run.provenance["tasks"] if task["role_hint"] != "ood")


def read_scene(measure: Measure) -> SoupScene | None:
    """Return the points that every reward has scored; None if there are none yet.

    Raises:
        ValueError: if the number of outcomes is not a multiple of the spec's `samples`.
    """
    run, rewards = measure.run, rewards_of(measure.run)
    split = "test" if _all_on_test(measure) else "val"
    kept = {arm.name: [c for c in arm.candidates if _is_scored(run, c, split)] for arm in measure.arms}
    rows = list(dict.fromkeys(c.recipe_id for candidates in kept.values() for c in candidates))
    if not rows:
        return None
    found = [run.samples[reward][recipe_id, split] for recipe_id in rows for reward in rewards]
    # One draw of prompts for all rewards: they score the same completions.
    means_SA = resampled_means(np.stack(found).astype(np.float64), REWARD_RESAMPLES, draws=run.draws)
    means = dict(zip(rows, means_SA.reshape(-1, len(rows), len(rewards)).transpose(1, 0, 2), strict=True))
    clouds = [_cloud(arm, kept[arm.name], run, means) for arm in measure.arms if kept[arm.name]]
    return SoupScene(
        run,
        rewards,
        split,
        run.draws,
        prompts=len(found[0]) // run.draws,
        sft=next((c for c in clouds if c.arm.kind == PRE_TRAINED), None),
        policies=next((c for c in clouds if c.arm.kind == "edit" and c.arm.role == "plain"), None),
        soups=[c for c in clouds if c.arm.kind == "merge"],
        others=[c for c in clouds if c.arm.kind == "edit" and c.arm.role != "plain"],
    )


def _all_on_test(measure: Measure) -> bool:
    """Whether every merge has as many scores on test as on validation, and at least one."""
    merges = [arm for arm in measure.arms if arm.kind == "merge"]
    counts = {
        split: [sum(_is_scored(measure.run, c, split) for c in arm.candidates) for arm in merges]
        for split in ("test", "val")
    }
    return any(counts["test"]) and all(t >= v for t, v in zip(counts["test"], counts["val"], strict=True))


def _is_scored(run: Run, candidate: CandidateRow, split: str) -> bool:
    """Whether every reward has a score: outcomes alone may belong to another arm with the same recipe."""
    scored = run.scored(candidate)
    return all((reward, split) in scored for reward in rewards_of(run))


def _cloud(arm: ArmResult, candidates: Sequence[CandidateRow], run: Run, means: Mapping[str, Array]) -> Cloud:
    experts = [str(expert) for expert in run.provenance["experts"]]
    mixed = _mixed(candidates)
    joined = len(mixed) == 2 and all(set(c.point) == {"lambda"} and c.recipe.weights for c in candidates)
    if joined:
        candidates = sorted(candidates, key=lambda c: c.recipe.weights[mixed[0]])
    labels = [c.group or _label(c, experts, mixed) for c in candidates]
    if arm.kind == "edit" and arm.role != "plain":
        labels = [", ".join(filter(None, (c.group, describe(c.point)))) for c in candidates]
    return Cloud(arm, labels, candidates, np.stack([means[c.recipe_id] for c in candidates], axis=1), joined)


def _mixed(candidates: Sequence[CandidateRow]) -> list[int]:
    """The experts that have a weight in at least one candidate."""
    weights = [c.recipe.weights for c in candidates if c.recipe.weights]
    return [i for i in range(len(weights[0])) if any(w[i] for w in weights)] if weights else []


def _label(candidate: CandidateRow, experts: Sequence[str], mixed: Sequence[int]) -> str:
    """The weight of the first of two policies, or of each of several; then the other searched dimensions."""
    weights = candidate.recipe.weights
    if not weights or not any(name.startswith("lambda") for name in candidate.point):
        return describe(candidate.point)
    if len(mixed) == 2:
        parts = [f"λ = {weights[mixed[0]]:.4g}"]
    else:
        parts = [f"{experts[i]} {weights[i]:.4g}" for i in mixed if weights[i]]
    rest = describe({name: value for name, value in candidate.point.items() if not name.startswith("lambda")})
    return ", ".join([*parts, *filter(None, [rest])])
