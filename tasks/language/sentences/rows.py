"""Rows of texts and labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tasks.language.rows import read_rows, split_file
from tasks.language.sentences.options import SentenceOptions
from tasks.registry import near


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One row: a text, or two that are read together, and its class by number or by name."""

    where: str
    texts: tuple[str, ...]
    label: int | str


def labelled_texts(
    source: str, splits: Mapping[str, int | None], options: SentenceOptions
) -> dict[str, list[LabelledText]]:
    """Read splits of a folder, each a .jsonl or .parquet file; without a val file, that split is empty.

    Args:
        source: the folder.
        splits: split -> number of first rows to use, None for all.
        options: the columns.

    Raises:
        ValueError: if there is no folder or no file of another split, or a row lacks a column; the file and the row are
            named.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        others = [p.name for p in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise ValueError(f"{source!r} is not a folder with val.jsonl and test.jsonl; {near(folder.name, others)}")
    found: dict[str, list[LabelledText]] = {}
    for split, limit in splits.items():
        try:
            path = split_file(source, folder, split)
        except ValueError:
            if split != "val":
                raise
            found[split] = []  # a set under `ood` has only test rows
            continue
        rows = islice(enumerate(read_rows(path), 1), limit)
        found[split] = [_labelled(row, f"{path}: row {number}", options) for number, row in rows]
    return found


def _labelled(row: object, where: str, options: SentenceOptions) -> LabelledText:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object of columns, got {row!r:.60}")
    columns = [options.text] if options.pair is None else [options.text, options.pair]
    label = row.get(options.label)
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise ValueError(_wrong(row, options.label, where, "a number or a name"))
    texts = [row.get(column) for column in columns]
    for column, text in zip(columns, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(_wrong(row, column, where, "a text"))
    return LabelledText(where, tuple(map(str, texts)), label)


def _wrong(row: Mapping[str, object], column: str, where: str, rule: str) -> str:
    hint = "" if column in row else f"; {near(column, map(str, row))}"
    return f"{where}: {column}: must be {rule}, got {row.get(column)!r:.60}{hint}"
