"""The prompts to learn from, and their order, which follows from the seed and the number of the step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from pipeline.spec.generation import Prompts
from pipeline.train.ppo.spec import MEASURED, PpoSpec
from pipeline.train.seeds import generator_of
from tasks.language.base import Prompt, PromptRequest
from tasks.language.prompts import load_prompts
from tasks.language.rewards.loading import reward_config


@dataclass(frozen=True)
class Data:
    """Prompts of a spec, within the limits of its model.

    Attributes:
        train: to learn from.
        val: to measure models on.
        train_fingerprint: of `train`.
        fingerprint: of both, and of whole rows if a reward takes them.
    """

    train: Sequence[Prompt]
    val: Sequence[Prompt]
    train_fingerprint: str
    fingerprint: str


def load_data(spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> Data:
    """Read the prompts.

    Raises:
        ValueError: as `tasks.language.prompts.load_prompts`, or if prompts lack references or columns that the spec
            needs, or a reward is unknown.
    """
    request = _request(spec.prompts)
    room = context(tokenizer, config) - spec.max_new_tokens
    train, val = (load_prompts(request, tokenizer, room, (split,)) for split in ("train", "val"))
    _check_references(spec, {"train": train.splits["train"], "val": val.splits["val"]})
    both = [train.fingerprint, val.fingerprint]
    if _rows_are_read(spec, (*train.splits["train"], *val.splits["val"])):
        both += [train.rows_fingerprint(), val.rows_fingerprint()]
    return Data(train.splits["train"], val.splits["val"], train.fingerprint, " ".join(both))


def _rows_are_read(spec: PpoSpec, prompts: Sequence[Prompt]) -> bool:
    """Check that rewards can score completions of the prompts; return whether one takes whole rows."""
    read = False
    for name, entry in spec.rewards.items():
        try:
            reward = reward_config(entry.source, entry.options)
            reward.check_prompts(prompts)
        except ValueError as error:
            raise ValueError(f"rewards.{name}: {error}") from error
        read |= reward.reads_rows()
    return read


def context(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Return the longest text that a model takes, in tokens."""
    return int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)


def _check_references(spec: PpoSpec, splits: Mapping[str, Sequence[Prompt]]) -> None:
    for split, prompts in splits.items():
        user = _user_of_references(spec, split)
        bare = sum(not p.reference for p in prompts)
        if bare and user:
            raise ValueError(
                f"prompts.source: {spec.prompts.source}: {bare} of {len(prompts)} rows of {split} have no reference, "
                f"which {user} needs; leave them out or add references"
            )


def _user_of_references(spec: PpoSpec, split: str) -> str:
    """Return which field needs the references of a split, "" if none does."""
    if spec.reward_centring == "reference":
        return "reward_centring: reference"
    return "sft" if spec.sft and split == "train" else ""


def _request(prompts: Prompts) -> PromptRequest:
    limits: dict[str, int] = {"val": MEASURED, **prompts.limits}  # type: ignore[dict-item]
    return PromptRequest(prompts.source, prompts.template, prompts.max_source_tokens, limits)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Return the tokens of a prompt, with those that the tokenizer adds in front."""
    ids: list[int] = tokenizer(prompt.text)["input_ids"]
    return ids


def rows(count: int, first: int, last: int, *seed: object) -> list[int]:
    """Return the indices of the examples number `first` to `last` - 1, in passes over `count`, each in a new order."""
    passes = {p: _order(count, p, seed) for p in range(first // count, (last - 1) // count + 1)}
    return [passes[at // count][at % count] for at in range(first, last)]


def _order(count: int, number: int, seed: object) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator_of("prompts", seed, number)).tolist()
    return order
