"""What prompts, rewards and engines of generation are: the whole interface between them. Free of torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of a prompt set, with its template filled in.

    Attributes:
        text: what a model continues.
        source: the part of it that rewards compare a completion with: the text to be summed up, without the template,
            cut as the prompt's is.
        reference: what a person wrote, without surrounding space; "" where there is none.
    """

    text: str
    source: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion to score, without surrounding space and special tokens."""

    prompt: Prompt
    completion: str


class Reward(Protocol):
    """A reward model or function, resident once made: higher is better."""

    fingerprint: str
    """Content hash of its weights or source and of its options: part of a score's identity."""

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """One finite number a sample, in their order, whatever else is in the batch."""
        ...


@dataclass(frozen=True, slots=True)
class Decoding:
    """How completions are drawn.

    Attributes:
        max_new_tokens: at most so many; a completion ends at the end-of-sequence token.
        temperature: 0 for the most probable token; else tokens are sampled from softmax(logits / temperature).
        batch_size: prompts a batch. Batches are cut at multiples of it, so that shards never change what is in one.
        seed: of the run; a prompt's own seed is made of it and of the prompt.
    """

    max_new_tokens: int
    temperature: float = 0.0
    batch_size: int = 16
    seed: int = 0


class Engine(Protocol):
    """What completes prompts with the weights that it holds."""

    def complete(self, prompts: Sequence[Prompt], draws: Sequence[int], decoding: Decoding) -> list[str]:
        """One completion a prompt, without the prompt, special tokens and surrounding space.

        Args:
            prompts: in the order of their set.
            draws: for each, which of several samples of the same prompt it is: 0, 1, ...; mixed into its seed.
            decoding: how.
        """
        ...


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """A prompt set as the spec names it.

    Attributes:
        source: `embedded/packages`, or a folder with val.jsonl and test.jsonl (train.jsonl too, to train on), or the
            same as .parquet; each row has `prompt`, or `source` for the template, and may have `reference`.
        template: with one {source}; used for rows that have no `prompt`.
        max_source_tokens: longer sources are cut to so many tokens of the model's tokenizer; None: never cut.
        limits: split -> rows to use (the first), all where left out.
    """

    source: str
    template: str = "{source}"
    max_source_tokens: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
