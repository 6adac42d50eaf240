"""Rewards by name or as a user's Python function, and the check of their scores. Imports no torch itself."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tasks.language.base import Reward, Sample
from tasks.language.rewards.config import RewardConfig, parsed
from tasks.language.rewards.function import function_config
from tasks.registry import Registry, near

if TYPE_CHECKING:
    import torch

#: Kinds of rewards; the source `reward/NAME` names one. A plug-in registers its own subclass of RewardConfig.
REWARDS: Registry[type[RewardConfig]] = Registry("reward")
REWARDS.register("classifier", "tasks.language.rewards.classifier:Classifier")
REWARDS.register("gpt2-summary", "tasks.language.rewards.named:Gpt2Summary")
REWARDS.register("bart-faithful", "tasks.language.rewards.named:BartFaithful")
REWARDS.register("similarity", "tasks.language.rewards.similarity:Similarity")
REWARDS.register("plainness", "tasks.language.rewards.plainness:Plainness")

_PREFIX = "reward/"
_EXCERPT = 80


def load_reward(source: str, options: Mapping[str, object], device: "torch.device") -> Reward:
    """Load the reward that `source` names onto `device`.

    Args:
        source: `reward/NAME`; or `FILE.py:FUNCTION` or `package.module:FUNCTION`, a plain Python function of a list of
            sources and a list of completions that returns a list of numbers; if it has a parameter `rows`, it also gets
            the rows of the prompt set, as dictionaries.
        options: of the reward.
        device: of its model.

    Raises:
        ValueError: if the reward, an option, a label or the function is unknown, or its model cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tasks.language.base import Prompt
        >>> folder = Path(tempfile.mkdtemp())
        >>> code = "def short(sources, completions): return [-len(c) for c in completions]"
        >>> _ = (folder / "short.py").write_text(code)
        >>> reward = load_reward(f"{folder}/short.py:short", {}, "cpu")
        >>> reward.score([Sample(Prompt("Sum up:", "a text"), "four")])
        [-4.0]
    """
    return reward_config(source, options).load(device)


def reward_fingerprint(source: str, options: Mapping[str, object]) -> str:
    """Return the reward's `fingerprint` without loading its weights; a model of the hub is fetched.

    Raises:
        ValueError: see `load_reward`; errors in the weights are not noticed.
    """
    return reward_config(source, options).fingerprint()


def reward_config(source: str, options: Mapping[str, object]) -> RewardConfig:
    """Check the reward's options; this loads nothing but a user's module.

    Raises:
        ValueError: if the reward, an option or the function is unknown, or a value is invalid.
    """
    if source.startswith(_PREFIX):
        return parsed(REWARDS[source.removeprefix(_PREFIX)], options)
    if ":" in source:
        return function_config(source, options)
    known = [_PREFIX + name for name in REWARDS]
    raise ValueError(
        f"unknown reward {source!r}: {near(source, known)}; a function is FILE.py:FUNCTION or package.module:FUNCTION"
    )


def checked(name: str, reward: Reward, samples: Sequence[Sample], accuracy: bool = False) -> npt.NDArray[np.float32]:
    """Score samples, and check that the scores are as `Reward` promises.

    Args:
        name: of the reward, for errors.
        reward: the reward.
        samples: the samples to score.
        accuracy: whether scores must be in [0, 1].

    Returns:
        One finite number a sample, of shape (len(samples),).

    Raises:
        ValueError: if there are more or fewer scores than samples, or an accuracy is outside [0, 1].
        tasks.base.NonFiniteOutput: if a score is NaN or infinite.
    """
    scores = np.asarray(reward.score(samples), dtype=np.float32)
    if scores.shape != (len(samples),):
        raise ValueError(
            f"reward {name!r}: must give one score a completion, got scores of shape {scores.shape} for {len(samples)} "
            f"completions{_first_unmatched(scores, samples)}"
        )
    if not np.isfinite(scores).all():
        raise _not_finite(name, scores, samples)
    if accuracy and len(outside := np.flatnonzero((scores < 0) | (scores > 1))):
        raise ValueError(
            f"reward {name!r}: must give accuracies in [0, 1], as its metric is accuracy, got {scores[outside[0]]:g} "
            f"for completion {outside[0]}, {_excerpt(samples[outside[0]])}"
        )
    return scores


def _first_unmatched(scores: npt.NDArray[np.float32], samples: Sequence[Sample]) -> str:
    """Name the first completion without a score, if there is one."""
    if scores.ndim != 1 or len(scores) >= len(samples):
        return ""
    return f"; the first without one is number {len(scores)}, {_excerpt(samples[len(scores)])}"


def _not_finite(name: str, scores: npt.NDArray[np.float32], samples: Sequence[Sample]) -> Exception:
    from tasks.errors import NonFiniteOutput

    bad = np.flatnonzero(~np.isfinite(scores))
    return NonFiniteOutput(
        f"reward {name!r}: {len(bad)} of {len(samples)} scores are not finite; the first is {scores[bad[0]]} for "
        f"completion {bad[0]}, {_excerpt(samples[bad[0]])}"
    )


def _excerpt(sample: Sample) -> str:
    text = sample.completion
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "...")
