"""Prompt sets: rows of a file with the template filled in, checked against the model's context."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedTokenizerBase

from tasks.files.cache import digest
from tasks.language.base import Prompt, PromptRequest
from tasks.language.models import model_folder
from tasks.language.rows import read_rows, split_file

_COLUMNS = ("prompt", "source", "reference")
#: Splits that are sorted by length, since prompts of similar length need little padding. Training shuffles anyway.
_BY_LENGTH = ("val", "test")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts of a run.

    Attributes:
        splits: split -> its prompts; "val" and "test" sorted by length in tokens, "train" in the order of its file.
        fingerprint: content hash of the splits' texts, sources and references, the template and the cut.
    """

    splits: Mapping[str, tuple[Prompt, ...]]
    fingerprint: str

    def rows_fingerprint(self) -> str:
        """Return the content hash of all columns of all rows, for rewards that take whole rows."""
        rows = ((split, prompt.row) for split, prompts in self.splits.items() for prompt in prompts)
        return digest(json.dumps(row, sort_keys=True, default=repr) for row in rows)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row and its place for errors ("val.jsonl: row 3").

    Attributes:
        where: its place.
        values: its texts by column, of the columns that make a prompt.
        whole: the row as it is in the file.
    """

    where: str
    values: Mapping[str, str]
    whole: Mapping[str, Any]


def load_prompts(
    request: PromptRequest, tokenizer: PreTrainedTokenizerBase, longest: int, splits: Sequence[str]
) -> PromptSet:
    """Read splits of a prompt set.

    Args:
        request: the set, and how its rows become prompts.
        tokenizer: of the model, to cut and to measure.
        longest: of prompts, in tokens: the model's context without the new tokens.
        splits: any of "train", "val", "test".

    Raises:
        ValueError: if the set or a split is missing or empty, or a row is not a prompt, is empty, is longer than
            `longest` or holds the pad token; the file and the row, counted from 1, are named.
    """
    folder = model_folder(request.source)
    found = {split: _split(split_file(request.source, folder, split), request, tokenizer, longest) for split in splits}
    texts = chain.from_iterable((split, *_texts(prompts)) for split, prompts in found.items())
    head = (request.template, str(request.max_source_tokens))
    return PromptSet(MappingProxyType(found), digest(chain(head, texts)))


def _texts(prompts: Sequence[Prompt]) -> Iterator[str]:
    for prompt in prompts:
        yield from (prompt.text, prompt.source, prompt.reference)


def _split(path: Path, request: PromptRequest, tokenizer: PreTrainedTokenizerBase, longest: int) -> tuple[Prompt, ...]:
    """Return the prompts of one file, in the order in which they are used."""
    rows = islice(_rows(path), request.limits.get(path.stem))
    found = [(row, _prompt(row, request, tokenizer)) for row in rows]
    if not found:
        raise ValueError(f"{path}: has no rows")
    lengths = [_length(row, prompt, tokenizer, longest) for row, prompt in found]
    order = sorted(range(len(found)), key=lengths.__getitem__) if path.stem in _BY_LENGTH else range(len(found))
    return tuple(found[i][1] for i in order)


def _length(row: _Row, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, longest: int) -> int:
    """Return the number of a prompt's tokens, with special tokens that the tokenizer adds."""
    ids = tokenizer(prompt.text, verbose=False)["input_ids"]
    length = len(ids)
    if tokenizer.pad_token_id in ids:  # training recognises padding by its token
        raise ValueError(
            f"{row.where}: its prompt holds the pad token {tokenizer.pad_token!r}, which would be taken for padding; "
            "remove the row"
        )
    if length > longest:
        raise ValueError(
            f"{row.where}: its prompt has {length} tokens, and the model takes at most {longest}; "
            "set prompts.max_source_tokens, or remove the row"
        )
    return length


def _prompt(row: _Row, request: PromptRequest, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """Return a row's prompt, or else the template with its source, cut to length."""
    values = row.values
    text, source = values.get("prompt", ""), values.get("source", "").strip()
    for column in ("prompt", "source"):
        if column in values and not values[column].strip():
            raise ValueError(f"{row.where}: its {column} is empty; remove the row")
    if not text:
        if request.max_source_tokens is not None:
            source = _cut(source, request.max_source_tokens, tokenizer)
            if not source:
                raise ValueError(f"{row.where}: its source is empty when cut to {request.max_source_tokens} tokens")
        text = request.template.replace("{source}", source)
    return Prompt(text, source or text.strip(), values.get("reference", "").strip(), row.whole)


def _cut(text: str, tokens: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the characters of the first tokens, without a character whose tokens are not all among them."""
    if not tokenizer.is_fast:
        raise ValueError("prompts.max_source_tokens: needs a fast tokenizer (tokenizer.json)")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if len(found) <= tokens:
        return text
    return text[: min(found[tokens - 1][1], found[tokens][0])].rstrip()


def _rows(path: Path) -> Iterator[_Row]:
    for number, value in enumerate(read_rows(path), 1):
        where = f"{path}: row {number}"
        whole = _checked(where, value)
        yield _Row(where, _texts_of(where, whole), whole)


def _checked(where: str, value: object) -> Mapping[str, Any]:
    """Return a row that is an object.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be an object with {' or '.join(_COLUMNS[:2])}, got {value!r:.60}")
    return value


def _texts_of(where: str, value: Mapping[str, Any]) -> dict[str, str]:
    """Return the row's texts by column; other columns and nulls are ignored.

    Raises:
        ValueError: if the row has neither prompt nor source, or values that are not texts.
    """
    texts = {name: text for name in _COLUMNS if (text := value.get(name)) is not None}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{where}: {name}: must be a text, got {text!r:.60}")
    if not texts.keys() & set(_COLUMNS[:2]):
        raise ValueError(f"{where}: must have a column prompt or source, got {', '.join(map(str, value)) or 'none'}")
    return texts
