"""Documents of plain texts: from a file, whose documents are divided into val and test, or from a folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tasks.files.cache import digest
from tasks.language.rows import SUFFIXES, in_validation, split_file
from tasks.language.text.own import existing_folder, placed_rows
from tasks.registry import near

#: A file of this type holds documents with blank lines between them.
TEXT = ".txt"
_KINDS = (*SUFFIXES, TEXT)
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        where: its file and place, for errors.
        text: never blank.
    """

    where: str
    text: str

    @property
    def size(self) -> int:
        """Its bytes of UTF-8."""
        return len(self.text.encode())


def documents_of(
    source: str, column: str, fraction: float, limits: Mapping[str, int | None], test_only: bool
) -> dict[str, list[Document]]:
    """Read the documents of each split; blank ones are left out.

    Args:
        source: a .txt, .jsonl or .parquet file, or a folder with one for val and one for test.
        column: with the text, of rows.
        fraction: of a file's documents that become val, by their content; the rest becomes test.
        limits: split -> number of first documents to use; all by default.
        test_only: whether val is left out; a file is then test as a whole.

    Raises:
        ValueError: if there is no such file or folder, or a row is wrong; the file and the row are named.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in _KINDS:
            raise ValueError(f"{source}: must be a folder, or a file of type {', '.join(_KINDS)}")
        every = read_documents(path, column)
        found = {"val": [], "test": every} if test_only else _divided(source, every, fraction)
    else:
        found = _of_folder(source, column, test_only)
    return {split: list(islice(some, limits.get(split))) for split, some in found.items()}


def _of_folder(source: str, column: str, test_only: bool) -> dict[str, list[Document]]:
    if not Path(source).expanduser().is_dir():
        parent = Path(source).expanduser().parent
        others = [p.name for p in parent.iterdir() if p.suffix in _KINDS or p.is_dir()] if parent.is_dir() else []
        raise ValueError(
            f"{source!r} is no file of type {', '.join(_KINDS)}, and no folder with val{TEXT} and test{TEXT}; "
            f"{near(Path(source).name, others)}"
        )
    folder = existing_folder(source)
    splits = ("test",) if test_only else ("val", "test")
    read = {split: read_documents(split_file(source, folder, split, _KINDS), column) for split in splits}
    return {"val": [], **read}


def _divided(source: str, every: list[Document], fraction: float) -> dict[str, list[Document]]:
    sides = [(in_validation(digest([document.text]), fraction), document) for document in every]
    found = {split: [d for in_val, d in sides if in_val == (split == "val")] for split in ("val", "test")}
    for split, some in found.items():
        if not some:
            raise ValueError(
                f"{source}: of its {len(every)} documents none is left for {split} by options.val_fraction "
                f"{fraction:g}: set another, or name a folder with a file for val and one for test"
            )
    return found


def read_documents(path: Path, column: str) -> list[Document]:
    """Read a file: paragraphs of a .txt, or rows with a column of texts.

    Raises:
        ValueError: if the file is not UTF-8, or a row has no text in its column; the row is named.
    """
    found = _paragraphs(path) if path.suffix == TEXT else _texts(path, column)
    return [document for document in found if document.text.strip()]


def _paragraphs(path: Path) -> list[Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8: {error}") from error
    parts = _BLANK_LINES.split(text.removeprefix("\ufeff").strip("\n"))
    return [Document(f"{path}: document {number}", part) for number, part in enumerate(parts, 1)]


def _texts(path: Path, column: str) -> list[Document]:
    found = []
    for row, where in placed_rows(path, None):
        text = row.get(column)
        if not isinstance(text, str):
            hint = "" if column in row else f"; {near(column, map(str, row))}"
            raise ValueError(f"{where}: {column}: must be a text, got {text!r:.60}{hint}")
        found.append(Document(where, text))
    return found
