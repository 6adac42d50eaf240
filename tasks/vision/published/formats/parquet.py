"""Parquet data sets of the Hugging Face hub: [FOLDER/]SPLIT-*.parquet with columns image {bytes, path} and label."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.files.cache import cache_root, cached, digest
from tasks.vision.file_tree import FileTree
from tasks.vision.published.formats.listing import FileSlice, FilesMissing, Format, Listing

_ROWS = 256


@dataclass(frozen=True, slots=True)
class _Columns:
    folder: str
    label: str


def parquet_format(folder: str = "", label: str = "label") -> Format:
    """Return the format of a mirror.

    Args:
        folder: the configuration's folder; "" for all Parquet files below the root.
        label: the column of labels.
    """
    columns = _Columns(folder, label)
    return Format(partial(_read, columns), partial(_class_names, columns))


def _files(columns: _Columns, place: Path, split: str) -> list[Path]:
    """Return the files of `split`, in the order of their rows.

    Raises:
        FilesMissing: if there is none; scripts are not run.
    """
    folder = place / columns.folder
    tree = FileTree(folder)
    everything = sorted(tree.files(folder)) if folder.is_dir() else []
    tree.check()
    files = [p for p in everything if p.suffix == ".parquet" and p.stem.split("-")[0] == split]
    if not files:
        script = "; it holds a script, which is not run" if list(place.glob("*.py")) else ""
        raise FilesMissing(f"{folder}: holds no {split}-*.parquet{script}")
    if len({p.parent for p in files}) > 1:
        raise FilesMissing(f"{place}: holds {split}-*.parquet in several folders: name one of them as root")
    return files


def _class_names(columns: _Columns, place: Path, split: str) -> Sequence[str]:
    """Return the names of the label column's ClassLabel; none if the column is a plain number."""
    metadata = pq.read_schema(_files(columns, place, split)[0]).metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names: list[str] = features.get(columns.label, {}).get("names", [])
    return names


def _read(columns: _Columns, place: Path, split: str) -> Listing:
    """Copy the images once into one cache file, where each is read by its offset.

    Parquet compresses groups of rows, so reading images in another order would decompress a group for each.
    """
    files = _files(columns, place, split)
    stats = [(p.resolve(), p.stat()) for p in files]
    key = digest([columns.label, *(f"{p} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for p, s in stats)])
    unpacked = cached(cache_root() / "unpacked" / key, lambda scratch: _unpack(columns, files, scratch))
    offsets = np.load(unpacked / "offsets.npy").tolist()
    labels: list[int] = np.load(unpacked / "labels.npy").tolist()
    blob = unpacked / "images.bin"
    return Listing([FileSlice(blob, a, b - a) for a, b in zip(offsets, offsets[1:], strict=False)], labels)


def _unpack(columns: _Columns, files: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    offsets, labels = [0], []
    with (folder / "images.bin").open("wb") as sink:
        for image, label in _rows(columns, files):
            offsets.append(offsets[-1] + sink.write(image))
            labels.append(label)
    np.save(folder / "offsets.npy", np.array(offsets, np.int64))
    np.save(folder / "labels.npy", np.array(labels, np.int64))


def _rows(columns: _Columns, files: Sequence[Path]) -> Iterator[tuple[bytes, int]]:
    """Yield encoded images and labels.

    Raises:
        FilesMissing: if a file cannot be read, lacks a column, or names images that it does not hold.
    """
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS, columns=["image", columns.label]):
                    yield from zip(_encoded(batch["image"]), map(int, batch[columns.label].to_pylist()), strict=True)
        except (pa.ArrowException, KeyError, TypeError) as error:
            raise FilesMissing(
                f"{path}: must have the columns image (bytes and path) and {columns.label}, filled in every row: "
                f"{error}"
            ) from error


def _encoded(column: pa.Array) -> list[bytes]:
    return [bytes(memoryview(row["bytes"])) for row in column.to_pylist()]
