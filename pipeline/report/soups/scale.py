"""The scale of hypervolumes of rewards: 0 is the SFT model, 1 the policy that was trained on the reward.

Shape legend: P points, K rewards, S = 1 + R with the measurement first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.report.soups.scene import SoupScene
from search.pareto import Array

_OWN = "the reward's own policy"


@dataclass(frozen=True)
class RewardScale:
    """Each reward's zero, which differs between resamples, and its unit, which is a constant.

    Attributes:
        start_SK: mean rewards of the SFT model.
        unit_K: the difference that counts as 1.
        words: reward -> its unit in words.
    """

    start_SK: Array
    unit_K: Array
    words: Mapping[str, str]

    def apply(self, mean_SPK: Array) -> Array:
        """Return raw mean rewards on this scale."""
        scaled: Array = (mean_SPK - self.start_SK[:, None]) / self.unit_K
        return scaled

    @property
    def note(self) -> str:
        """How to read a normalised value."""
        if set(self.words.values()) == {_OWN}:
            return f"For each reward, 0 is the SFT model and 1 is {_OWN}."
        units = "; ".join(f"for {reward}, {word}" for reward, word in self.words.items())
        return f"For each reward, 0 is the SFT model; 1 is, {units}."


def read_scale(scene: SoupScene) -> RewardScale:
    """Return the scale of a scene; the unit is the SFT model's spread if a reward's own policy is not above it."""
    start_SK = np.zeros((1, len(scene.rewards))) if scene.sft is None else scene.sft.xy_SPM[:, 0]
    units, words = zip(*(_unit(scene, k, float(start_SK[0, k])) for k in range(len(scene.rewards))), strict=True)
    return RewardScale(start_SK, np.array(units), dict(zip(scene.rewards, words, strict=True)))


def _unit(scene: SoupScene, k: int, start: float) -> tuple[float, str]:
    reward = scene.rewards[k]
    if scene.sft is None:
        return 1.0, "a raw 1 (and 0 a raw 0), since the SFT model was not scored"
    targets = scene.run.provenance["targets"]
    policies = scene.policies
    own = [] if policies is None else [i for i, c in enumerate(policies.candidates) if targets.get(c.group) == reward]
    best = max((float(policies.xy_PM[i, k]) for i in own if policies is not None), default=start)
    if best > start:
        return best - start, _OWN
    outcomes = scene.outcomes(scene.sft.candidates[0], reward)
    spread = 0.0 if outcomes is None else float(outcomes.std())
    why = "its policy is not above the SFT model" if own else "it has no policy of its own"
    return spread or 1.0, f"one standard deviation over the SFT model's completions, since {why}"
