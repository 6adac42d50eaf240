"""What a run of rewards is reported by: every arm's points on one split, as measured and resampled.

Shape legend: P points of an arm, K rewards, S = 1 + R with the measurement first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.points import describe
from pipeline.report.data.run import PRE_TRAINED, CandidateRow, Run
from pipeline.report.soups.resamples import resampled_means
from search.pareto import Array


@dataclass(frozen=True)
class Soup:
    """The points of one arm, or a reference: the SFT model, or the policies.

    Attributes:
        arm: whose they are.
        candidates: P of them; along lambda, where there is one lambda.
        labels: P points in words.
        mean_SPK: their mean rewards.
        joined: whether they lie along one line, lambda, so that a figure may join them.
    """

    arm: ArmResult
    candidates: Sequence[CandidateRow]
    labels: Sequence[str]
    mean_SPK: Array
    joined: bool


@dataclass(frozen=True)
class SoupScene:
    """All points of a run on one split.

    Attributes:
        run: the run.
        rewards: K names.
        split: test, or val where not every arm was scored in full on test.
        draws: completions of each prompt.
        prompts: how many there are.
        sft: the model that the policies start from; None where it was not scored.
        policies: the policies as they are; None where none was scored.
        soups: one an arm of merges.
        others: arms that edit one policy at a time.
    """

    run: Run
    rewards: tuple[str, ...]
    split: str
    draws: int
    prompts: int
    sft: Soup | None
    policies: Soup | None
    soups: Sequence[Soup]
    others: Sequence[Soup]

    def outcomes(self, candidate: CandidateRow, reward: str) -> Array | None:
        """Rewards of a candidate's completions, prompt-major, on the split of the scene."""
        found = self.run.outcomes(candidate, reward, self.split)
        return None if found is None else found.astype(np.float64)


def is_soup(run: Run) -> bool:
    """Whether the run's tasks are rewards of the same completions, and at least two of them."""
    return isinstance(run.provenance["spec"].get("generation"), Mapping) and len(rewards_of(run)) > 1


def rewards_of(run: Run) -> tuple[str, ...]:
    """The rewards in the order of the spec."""
    return tuple(str(task["name"]) for task in run.provenance["tasks"] if task["role_hint"] != "ood")


def read_scene(measure: Measure) -> SoupScene | None:
    """The points that every reward has scored; None where there are none yet.

    Raises:
        ValueError: outcomes are not so many for each prompt as the spec samples.
    """
    run, rewards = measure.run, rewards_of(measure.run)
    split = "test" if _all_on_test(measure) else "val"
    kept = {arm.name: [c for c in arm.candidates if _is_scored(run, c, split)] for arm in measure.arms}
    rows = list(dict.fromkeys(c.recipe_id for candidates in kept.values() for c in candidates))
    if not rows:
        return None
    found = [run.samples[reward][recipe_id, split] for recipe_id in rows for reward in rewards]
    draws = int(run.provenance["spec"]["generation"].get("samples", 1))
    means_SAK = resampled_means(np.stack(found).astype(np.float64), draws).reshape(-1, len(rows), len(rewards))
    place = {recipe_id: i for i, recipe_id in enumerate(rows)}
    soups = [_soup(arm, kept[arm.name], run, means_SAK, place) for arm in measure.arms if kept[arm.name]]

    def of(kind: str, plain: bool) -> list[Soup]:
        return [s for s in soups if s.arm.kind == kind and (s.arm.role == "plain") is plain]

    sft, policies = of(PRE_TRAINED, False), of("edit", True)
    merges = [s for s in soups if s.arm.kind == "merge"]
    first = {"sft": next(iter(sft), None), "policies": next(iter(policies), None)}
    prompts = len(found[0]) // draws
    return SoupScene(run, rewards, split, draws, prompts, soups=merges, others=of("edit", False), **first)


def _all_on_test(measure: Measure) -> bool:
    """Whether every merge has on test all that it has on validation, and has something there."""
    merges = [arm for arm in measure.arms if arm.kind == "merge"]
    counts = {
        split: [sum(_is_scored(measure.run, c, split) for c in arm.candidates) for arm in merges]
        for split in ("test", "val")
    }
    return any(counts["test"]) and all(t >= v for t, v in zip(counts["test"], counts["val"], strict=True))


def _is_scored(run: Run, candidate: CandidateRow, split: str) -> bool:
    """Whether the scores table has it for every reward: outcomes alone may be another arm's, of the same recipe."""
    scored = run.scored(candidate)
    return all((reward, split) in scored for reward in rewards_of(run))


def _soup(
    arm: ArmResult, candidates: Sequence[CandidateRow], run: Run, means_SAK: Array, place: Mapping[str, int]
) -> Soup:
    experts = [str(expert) for expert in run.provenance["experts"]]
    mixed = _mixed(candidates)
    joined = len(mixed) == 2 and all(set(c.point) == {"lambda"} and c.recipe.weights for c in candidates)
    if joined:
        candidates = sorted(candidates, key=lambda c: c.recipe.weights[mixed[0]])
    labels = [c.group or _label(c, experts, mixed) for c in candidates]
    if arm.kind == "edit" and arm.role != "plain":
        labels = [", ".join(filter(None, (c.group, describe(c.point)))) for c in candidates]
    return Soup(arm, candidates, labels, means_SAK[:, [place[c.recipe_id] for c in candidates]], joined)


def _mixed(candidates: Sequence[CandidateRow]) -> list[int]:
    """The experts that have a part in one candidate or another."""
    weights = [c.recipe.weights for c in candidates if c.recipe.weights]
    return [i for i in range(len(weights[0])) if any(w[i] for w in weights)] if weights else []


def _label(candidate: CandidateRow, experts: Sequence[str], mixed: Sequence[int]) -> str:
    """The first of two policies' weight, or each one's of several; then what else was searched."""
    weights = candidate.recipe.weights
    if not weights or not any(name.startswith("lambda") for name in candidate.point):
        return describe(candidate.point)
    if len(mixed) == 2:
        parts = [f"λ = {weights[mixed[0]]:.4g}"]
    else:
        parts = [f"{experts[i]} {weights[i]:.4g}" for i in mixed if weights[i]]
    rest = describe({name: value for name, value in candidate.point.items() if not name.startswith("lambda")})
    return ", ".join([*parts, *filter(None, [rest])])
