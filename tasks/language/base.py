"""Interfaces of prompts, rewards and generation engines. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of a prompt set, with its template filled in.

    Attributes:
        text: the text that a model continues.
        source: the part that rewards compare a completion with: the text to summarise, without the template, cut like
            the prompt's.
        reference: a human's text, without surrounding space; "" if there is none.
        row: the row as it is in the file, with all its columns.
    """

    text: str
    source: str
    reference: str = ""
    row: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion to score, without surrounding space and special tokens."""

    prompt: Prompt
    completion: str


class Reward(Protocol):
    """A reward model or function; higher is better."""

    fingerprint: str
    """Content hash of its weights or source and of its options: part of a score's identity."""

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """Return one finite number a sample, in order, independent of the rest of the batch."""
        ...


@dataclass(frozen=True, slots=True)
class Decoding:
    """How completions are drawn.

    Attributes:
        max_new_tokens: the longest completion, unless the end-of-sequence token ends it.
        temperature: 0 for the most probable token; else tokens are sampled from softmax(logits / temperature).
        batch_size: prompts a batch. Batches start at multiples of it, so shards do not change their contents.
        seed: of the run; a prompt's seed is derived from it and the prompt.
    """

    max_new_tokens: int
    temperature: float = 0.0
    batch_size: int = 16
    seed: int = 0


class Engine(Protocol):
    """A generator that completes prompts with its current weights."""

    def complete(self, prompts: Sequence[Prompt], draws: Sequence[int], decoding: Decoding) -> list[str]:
        """Return one completion a prompt, without the prompt, special tokens and surrounding space.

        Args:
            prompts: in the order of their set.
            draws: number of each prompt's sample (0, 1, ...), which is mixed into its seed.
            decoding: how to draw.
        """
        ...


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """A prompt set of the spec.

    Attributes:
        source: `embedded/packages`, or a folder with val.jsonl and test.jsonl (and train.jsonl for training), or the
            same as .parquet; each row has `prompt`, or `source` for the template, and may have `reference`.
        template: text with one {source}, for rows without `prompt`.
        max_source_tokens: longer sources are cut to this many tokens of the model's tokenizer; None: never.
        limits: split -> number of first rows to use; all by default.
    """

    source: str
    template: str = "{source}"
    max_source_tokens: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
