"""What stands at the top of the page of a run of rewards: signs that its numbers do not mean what they seem to."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from pipeline.report.soups.completions import Shares, SplitCompletions
from pipeline.report.soups.policies import Policy
from pipeline.report.soups.scene import Soup, SoupScene
from search.pareto import Array

#: A reward's range is from the SFT model's worst completion to the best of any model's: what broken models get says
#: nothing of it. It is saturated when so large a part of the SFT model's completions is in the top hundredth ...
SATURATED = 0.9
#: ... and hardly varies when their standard deviation is below this part of the range.
STILL = 0.01
#: Rewards that go together so closely (Pearson, over the SFT model's completions) are one reward.
SAME = 0.95
#: Nats a completion, beyond which a policy has little to do with its SFT model, where its training names no limit.
FAR = 25.0
#: Completions collapse when fewer than this part of them differ, or more than this part of their words are repeated ...
DISTINCT, REPEATED = 0.2, 0.3
#: ... and are worse than the SFT model's by this factor: short answers are often alike, and long ones repeat words.
WORSE = 1.25
#: Points that a warning names.
_NAMED = 5


def cautions(scene: SoupScene, completions: SplitCompletions | None, policies: Sequence[Policy]) -> list[str]:
    """All warnings, in whole sentences."""
    found = [*_rewards(scene), *(said for policy in policies for said in _training(policy))]
    return [*found, *(_collapses(scene, completions) if completions is not None else [])]


def _rewards(scene: SoupScene) -> Iterator[str]:
    if scene.sft is None:
        return
    start = {reward: scene.outcomes(scene.sft.candidates[0], reward) for reward in scene.rewards}
    known = {reward: outcomes for reward, outcomes in start.items() if outcomes is not None}
    for reward, outcomes in known.items():
        said = _saturation(outcomes, _highest(scene, reward))
        if said:
            yield f"The reward {reward} {said}: what a policy gains on it says little."
    for (a, first), (b, second) in combinations(known.items(), 2):
        if min(first.std(), second.std()) == 0:
            continue
        together = float(np.corrcoef(first, second)[0, 1])
        if abs(together) > SAME:
            kind = "nearly the same reward" if together > 0 else "nearly opposite rewards"
            yield (
                f"{a} and {b} are {kind} over the SFT model's completions (correlation {together:.2f}): "
                "a front of the two says little."
            )


def _highest(scene: SoupScene, reward: str) -> float:
    """The largest outcome of any completion of the run's split."""
    kept = scene.run.samples[reward].items()
    return max(float(outcomes.max()) for (_, split), outcomes in kept if split == scene.split and len(outcomes))


def _saturation(outcomes: Array, high: float) -> str:
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
    yield from (f"Training of the policy {policy.name}: {said}." for said in policy.warnings)
    limit = FAR if policy.limit is None else policy.limit
    if policy.kl > limit:
        rising = "while its reward was still rising: look at its completions before its score"
        reward = rising if policy.rising else "and its reward was not rising any more"
        far = f"{policy.kl:.1f} nats a completion, above {limit:g}"
        yield f"The KL of the policy {policy.name} ran away: {far}, {reward}."


def _collapses(scene: SoupScene, completions: SplitCompletions) -> Iterator[str]:
    start = None if scene.sft is None else completions.shares.get(scene.sft.candidates[0].recipe_id)
    if start is not None and start.distinct < DISTINCT:
        yield (
            f"The SFT model gives only {100 * start.distinct:.0f}% distinct completions: "
            "what is made of it has little to vary."
        )
    for soup in (*([scene.policies] if scene.policies else []), *scene.soups, *scene.others):
        found = [
            (label, completions.shares.get(c.recipe_id)) for label, c in zip(soup.labels, soup.candidates, strict=True)
        ]
        bad = [(label, said) for label, share in found if share is not None and (said := _collapse(share, start))]
        if bad:
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            where = ", ".join(label for label, _ in bad[:_NAMED]) + more
            yield f"Completions of {_whose(soup)} collapse at {where}: {_worst([said for _, said in bad])}."


def _whose(soup: Soup) -> str:
    return "the policies" if soup.arm.kind == "edit" and soup.arm.role == "plain" else soup.arm.name


def _collapse(share: Shares, start: Shares | None) -> tuple[float, str] | None:
    """(how bad, what), or None."""
    if share.distinct < DISTINCT and (start is None or WORSE * share.distinct < start.distinct):
        return 2 - share.distinct, f"only {100 * share.distinct:.0f}% of them differ"
    if share.repeated > REPEATED and (start is None or share.repeated > WORSE * start.repeated):
        return share.repeated, f"{100 * share.repeated:.0f}% of their words are repeated"
    return None


def _worst(said: Sequence[tuple[float, str]]) -> str:
    return f"{'at worst ' if len(said) > 1 else ''}{max(said)[1]}"
