"""Rows of .jsonl and .parquet files."""

import json
from collections.abc import Iterator
from pathlib import Path

from pyarrow import ArrowException, parquet

from tasks.files.cache import digest
from tasks.registry import near

#: File types that hold rows.
SUFFIXES = (".jsonl", ".parquet")


def read_rows(path: Path) -> Iterator[object]:
    """Yield the rows of a .jsonl or .parquet file.

    Raises:
        ValueError: if a line is not JSON, or the file is not Parquet; the file and the row are named.
    """
    yield from (_json_rows if path.suffix == ".jsonl" else _parquet_rows)(path)


def split_file(source: str, folder: Path, split: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Return the file of a split in a folder.

    Raises:
        ValueError: if there is none; near names are suggested.
    """
    for suffix in suffixes:
        if (path := folder / f"{split}{suffix}").is_file():
            return path
    others = [p.name for p in folder.iterdir() if p.suffix in suffixes]
    names = " or ".join(f"{split}{suffix}" for suffix in suffixes)
    raise ValueError(f"{source}: has no {names}; {near(f'{split}{suffixes[0]}', others)}")


def in_validation(key: str, fraction: float) -> bool:
    """Return whether a sample becomes val where one set is divided: by the hash of its content alone.

    Copies are on the same side, and samples added later move none of the others.
    """
    return int(digest(["split", key])[:16], 16) < fraction * 2**64


def _json_rows(path: Path) -> Iterator[object]:
    lines = path.read_text(encoding="utf-8").split("\n")  # never splitlines(): texts may hold U+2028
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line:
            return
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: row {number}: not JSON ({error})") from error


def _parquet_rows(path: Path) -> Iterator[object]:
    try:
        yield from parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from error
