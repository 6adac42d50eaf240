"""Tokens of samples: joining prompt and completion, cutting to length, batching."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.language.base import Prompt, Sample

PAIR = "pair"
COMPLETION = "completion"
#: Tokenizers without a limit give a huge number.
_ENDLESS = 10**9
_PLACE = re.compile(r"\{(source|completion|prompt)\}")

Tokens = Mapping[str, list[int]]


def _check_form(form: str) -> str:
    if form not in (PAIR, COMPLETION) and "{completion}" not in form:
        raise ValueError("must be pair, completion, or a template with {completion}, and {source} or {prompt}")
    return form


#: How prompt and completion are joined; see `SampleTokenizer`.
Form = Annotated[str, AfterValidator(_check_form)]


class SampleTokenizer:
    """Turns samples into tokens.

    Names of special tokens are removed from the texts, so that no completion can end or pad its own text. In a template
    they become the special tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: str, limit: int | None) -> None:
        """Encode in `form`.

        Args:
            tokenizer: a fast one.
            form: `pair`: source and completion as two sequences; `completion`: the completion alone; or a template with
                {completion}, {source} and {prompt} (the whole prompt).
            limit: the longest input in tokens; None: any length.
        """
        self._tokenizer = tokenizer
        self._form = form
        self._limit = limit
        names = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def encode(self, samples: Sequence[Sample]) -> list[Tokens]:
        """Return the model's inputs; if one is too long, cut the end of the source but never the completion.

        Raises:
            ValueError: if an input is too long even without its source.
        """
        samples = [self._cleaned(sample) for sample in samples]
        tokens = self._tokens(samples)
        if self._limit is None:
            return tokens
        excess = [len(t["input_ids"]) - self._limit for t in tokens]
        rows = zip(samples, tokens, excess, strict=True)
        return [t if more <= 0 else self._shortened(sample, more, self._limit) for sample, t, more in rows]

    def _cleaned(self, sample: Sample) -> Sample:
        text, source = (self._special.sub("", part) for part in (sample.prompt.text, sample.prompt.source))
        return Sample(Prompt(text, source), self._special.sub("", sample.completion))

    def _tokens(self, samples: Sequence[Sample]) -> list[Tokens]:
        """Tokenize as a batch, even of one: for a single pair, transformers ignores an empty second text."""
        if not samples:
            return []
        texts = zip(*(self._texts(sample) for sample in samples), strict=True)
        batch = self._tokenizer(*map(list, texts), verbose=False)
        return [{name: batch[name][i] for name in batch} for i in range(len(samples))]

    def _texts(self, sample: Sample) -> list[str]:
        """Return one text, or the two of a pair."""
        places = {"source": sample.prompt.source, "completion": sample.completion, "prompt": sample.prompt.text}
        forms = {PAIR: ["{source}", "{completion}"], COMPLETION: ["{completion}"]}.get(self._form, [self._form])
        # One pass, so that a text that holds {completion} stays unchanged.
        return [_PLACE.sub(lambda match: places[match[1]], form) for form in forms]

    def _shortened(self, sample: Sample, excess: int, limit: int) -> Tokens:
        """Cut the source at the end of a token, and again if tokens then merge differently."""
        source = sample.prompt.source
        found = self._tokenizer(source, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in found["offset_mapping"]]
        while ends:
            ends = ends[:-excess]
            [tokens] = self._tokens([_with_source(sample, source[: ends[-1]] if ends else "")])
            excess = len(tokens["input_ids"]) - limit
            if excess <= 0:
                return tokens
        raise ValueError(
            f"options.max_length: is too short for the completion {sample.completion[:60]!r}, which is never cut: "
            f"without its source it is {excess} tokens longer than {limit}"
        )


def _with_source(sample: Sample, source: str) -> Sample:
    """Replace the sample's source; a prompt that does not hold its source stays unchanged."""
    text = sample.prompt.text.replace(sample.prompt.source, source, 1)
    return Sample(Prompt(text, source), sample.completion)


def token_limit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, wanted: int | None) -> int | None:
    """Return the longest input: `wanted`, or all that tokenizer and model take; None: unlimited.

    Raises:
        ValueError: if `wanted` is more than the model takes.
    """
    known = [n for n in (_positions(model), tokenizer.model_max_length) if n is not None and n < _ENDLESS]
    most = min(known, default=None)
    if wanted is not None and most is not None and wanted > most:
        raise ValueError(f"options.max_length: must be at most the model's {most} tokens, got {wanted}")
    return most if wanted is None else wanted


def _positions(model: PreTrainedModel) -> int | None:
    """Return the number of learned positions; RoBERTa's begin after the padding's index."""
    number: int | None = getattr(model.config, "max_position_embeddings", None)
    for name, part in model.named_modules():
        if number and name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx:
            return number - part.padding_idx - 1
    return number


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return indices in batches of similar length, for little padding; the longest, which need most memory, first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + size] for start in range(0, len(order), size)]
