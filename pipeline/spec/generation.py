"""Prompts, rewards and generation, for runs whose tasks are rewards and for `lines ppo`."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline.spec.values import Count, SpecModel

Rows = dict[Literal["train", "val", "test"], Count]


class Prompts(SpecModel):
    """A set of prompts with its splits."""

    source: str
    """embedded/packages, or a folder with val.jsonl, test.jsonl (and train.jsonl), or .parquet files of these names."""
    template: str = "{source}"
    """The text that a model continues; {source} is replaced by the row's text. Rows with a `prompt` do not use it."""
    max_source_tokens: Count | None = None
    """Longer sources are cut to this many tokens; the template is never cut. A prompt that is still too long fails."""
    limits: Rows = {}
    """How many prompts of each split to use, from its start; default: all."""

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{source}") != 1:
            raise ValueError(f"must hold {{source}} once, got {template!r}")
        return template


class RewardSpec(SpecModel):
    """A reward of `lines ppo`."""

    source: str
    """reward/NAME, or a Python function: FILE.py:FUNCTION or package.module:FUNCTION."""
    options: dict[str, Any] = {}
    """Options of the reward, such as model."""


class Generation(SpecModel):
    """How completions are generated; every task of the run is then a reward of the same completions."""

    prompts: Prompts
    """The prompts to complete."""
    max_new_tokens: int = Field(ge=1, le=1_000_000)
    """The longest completion, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the most probable token; above 0, tokens are sampled."""
    samples: int = Field(1, ge=1, le=10_000)
    """Completions of each prompt, each with its own seed; more than 1 needs a temperature."""
    batch_size: int = Field(16, ge=1, le=1_000_000)
    """Prompts in a batch; `shard_size` must be a multiple of it, so that shards never change a score."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """transformers; or vllm, if it is installed: experimental, as it has not run on a GPU yet."""


def is_reward_source(source: str) -> bool:
    """Whether a task's source is a reward: `reward/NAME`, FILE.py:FUNCTION or MODULE:FUNCTION.

    Example:
        >>> is_reward_source("rewards.py:brevity"), is_reward_source("embedded/mnist")
        (True, False)
    """
    return source.startswith("reward/") or re.search(r":[A-Za-z_]\w*$", source) is not None


def reward_defaults(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the defaults of a run of rewards: a shard is one batch, and the mean reward is maximised.

    If all rewards are accuracies, the objective is that of other runs.
    """
    generation = data.get("generation")
    if not isinstance(generation, Mapping | Generation):
        return data
    batch = generation.batch_size if isinstance(generation, Generation) else generation.get("batch_size", 16)
    tasks = data.get("tasks")
    values = list(tasks.values()) if isinstance(tasks, Mapping) else []
    accuracies = values and all(isinstance(task, Mapping) and task.get("metric") == "accuracy" for task in values)
    return {"shard_size": batch, **({} if accuracies else {"select": {"maximise": "reward"}}), **data}
