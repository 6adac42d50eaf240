"""Warnings at the top of the page of a run of rewards: signs that its numbers are misleading."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from pipeline.report.data.clouds import Cloud
from pipeline.report.soups.completions import Shares, SplitCompletions
from pipeline.report.soups.policies import Policy
from pipeline.report.soups.scene import SoupScene
from search.pareto import Array

#: A reward is saturated if this share of the SFT model's completions is in the top hundredth of its range, which goes
#: from the SFT model's worst completion to any model's best: broken models do not widen it ...
SATURATED = 0.9
#: ... and hardly varies if their standard deviation is below this share of the range.
STILL = 0.01
#: Two rewards with this correlation (Pearson, over the SFT model's completions) are one reward.
SAME = 0.95
#: KL in nats a completion above which a policy has little to do with its SFT model, if its training names no limit.
FAR = 25.0
#: Completions collapse if fewer than this share of them differ, or more than this share of their words are repeated ...
DISTINCT, REPEATED = 0.2, 0.3
#: ... and are worse than the SFT model's by this factor: short answers are often equal, and long ones repeat words.
WORSE = 1.25
#: Points that a warning names.
_NAMED = 5


def cautions(scene: SoupScene, completions: SplitCompletions | None, policies: Sequence[Policy]) -> list[str]:
    """Return all warnings, as sentences."""
    found = [*_rewards(scene), *(warning for policy in policies for warning in _training(policy))]
    return [*found, *(_collapses(scene, completions) if completions is not None else [])]


def _rewards(scene: SoupScene) -> Iterator[str]:
    if scene.sft is None:
        return
    start = {reward: scene.outcomes(scene.sft.candidates[0], reward) for reward in scene.rewards}
    known = {reward: outcomes for reward, outcomes in start.items() if outcomes is not None}
    for reward, outcomes in known.items():
        fault = saturation(outcomes, _highest(scene, reward))
        if fault:
            yield f"The reward {reward} {fault}: a policy's gain on it means little."
    for (a, first), (b, second) in combinations(known.items(), 2):
        if min(first.std(), second.std()) == 0:
            continue
        together = float(np.corrcoef(first, second)[0, 1])
        if abs(together) > SAME:
            kind = "nearly the same reward" if together > 0 else "nearly opposite rewards"
            yield (
                f"{a} and {b} are {kind} over the SFT model's completions (correlation {together:.2f}): "
                "a front of the two means little."
            )


def _highest(scene: SoupScene, reward: str) -> float:
    """The largest outcome of any completion of the run's split."""
    kept = scene.run.samples[reward].items()
    return max(float(outcomes.max()) for (_, split), outcomes in kept if split == scene.split and len(outcomes))


def saturation(outcomes: Array, high: float) -> str:
    """Return why the SFT model's outcomes leave little to gain below `high`, or an empty string."""
    span = high - float(outcomes.min())
    top = float((outcomes >= high - 0.01 * span).mean())
    if top >= SATURATED:
        return f"is saturated: {100 * top:.0f}% of the SFT model's completions are at its maximum already"
    if outcomes.std() < STILL * span:
        return "hardly varies over the SFT model's completions"
    return ""


def _training(policy: Policy) -> Iterator[str]:
    if policy.stopped:
        yield f"Training of the policy {policy.name} was stopped early: {policy.stopped}."
    yield from (f"Training of the policy {policy.name}: {warning}." for warning in policy.warnings)
    limit = FAR if policy.limit is None else policy.limit
    if policy.kl > limit:
        rising = "while its reward was still rising: read its completions before you trust its score"
        reward = rising if policy.rising else "and its reward had stopped rising"
        far = f"{policy.kl:.1f} nats a completion, above {limit:g}"
        yield f"The KL of the policy {policy.name} ran away: {far}, {reward}."


def _collapses(scene: SoupScene, completions: SplitCompletions) -> Iterator[str]:
    start = None if scene.sft is None else completions.shares.get(scene.sft.candidates[0].recipe_id)
    if start is not None and start.distinct < DISTINCT:
        yield (
            f"Only {100 * start.distinct:.0f}% of the SFT model's completions are distinct: "
            "the models made from it cannot vary much."
        )
    for cloud in (*([scene.policies] if scene.policies else []), *scene.soups, *scene.others):
        shares = [completions.shares.get(c.recipe_id) for c in cloud.candidates]
        faults = [None if share is None else collapse(share, start) for share in shares]
        bad = [(label, fault) for label, fault in zip(cloud.labels, faults, strict=True) if fault]
        if bad:
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            where = ", ".join(label for label, _ in bad[:_NAMED]) + more
            worst = f"{'at worst ' if len(bad) > 1 else ''}{max(fault for _, fault in bad)[1]}"
            yield f"Completions of {_models(cloud)} collapse at {where}: {worst}."


def _models(cloud: Cloud) -> str:
    return "the policies" if cloud.arm.kind == "edit" and cloud.arm.role == "plain" else cloud.arm.name


def collapse(share: Shares, start: Shares | None) -> tuple[float, str] | None:
    """Return (severity, sentence) if completions collapse compared to the SFT model's, or None."""
    if share.distinct < DISTINCT and (start is None or WORSE * share.distinct < start.distinct):
        return 2 - share.distinct, f"only {100 * share.distinct:.0f}% of them differ"
    if share.repeated > REPEATED and (start is None or share.repeated > WORSE * start.repeated):
        return share.repeated, f"{100 * share.repeated:.0f}% of their words are repeated"
    return None
