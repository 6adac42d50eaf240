"""Prompts and generation, as a spec has them: for runs whose tasks are rewards, and for `lines ppo`."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from pipeline.spec.values import SpecModel

Rows = dict[Literal["train", "val", "test"], Annotated[int, Field(ge=1)]]


class Prompts(SpecModel):
    """A set of prompts, in splits."""

    source: str
    """embedded/packages, or a folder with val.jsonl, test.jsonl (and train.jsonl), or the same as .parquet."""
    template: str = "{source}"
    """What a model continues; {source} stands for the row's text. Rows with a `prompt` of their own need none."""
    max_source_tokens: int | None = Field(None, ge=1)
    """Longer sources are cut to so many tokens, the template never; a prompt that is still too long is an error."""
    limits: Rows = {}
    """Prompts to use of each split, the first of its order; all where left out."""

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{source}") != 1:
            raise ValueError(f"must hold {{source}} once, got {template!r}")
        return template


class RewardSpec(BaseModel):
    """A reward, as a task of a run names it; of `lines ppo`, and so no part of a run's spec."""

    model_config = SpecModel.model_config

    source: str
    """reward/NAME, or a Python function: FILE.py:FUNCTION or package.module:FUNCTION."""
    options: dict[str, Any] = {}
    """What the reward understands, such as model."""


class Generation(SpecModel):
    """How completions are made and scored: every task of the run is then a reward of the same completions."""

    prompts: Prompts
    """What is completed."""
    max_new_tokens: int = Field(ge=1)
    """The longest completion, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """0: always the most probable token; above 0: sampled."""
    samples: int = Field(1, ge=1)
    """Completions of each prompt, each drawn with a seed of its own; more than 1 needs a temperature."""
    batch_size: int = Field(16, ge=1)
    """Prompts a batch; `shard_size` must be a multiple of it, so that shards never change a score."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """transformers; or vllm, where it is installed."""


def is_reward_source(source: str) -> bool:
    """Whether a task's source is a reward: `reward/NAME`, or a Python function, FILE.py:NAME or MODULE:NAME."""
    return source.startswith("reward/") or re.search(r":[A-Za-z_]\w*$", source) is not None


def reward_defaults(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run of rewards has where its spec is silent: a shard is a batch, and the mean reward is maximised."""
    generation = data.get("generation")
    if not isinstance(generation, Mapping | Generation):
        return data
    batch = generation.batch_size if isinstance(generation, Generation) else generation.get("batch_size", 16)
    return {"shard_size": batch, "select": {"maximise": "reward"}, **data}
