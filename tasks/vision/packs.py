"""Embedded packs as an image source: 32 x 32 images in Parquet, already split."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.embedded.sums import check
from tasks.registry import near
from tasks.vision.images import ImageRecord


class PackSource:
    """One pack: columns image (fixed-size binary, planar C, H, W), label and split; JSON in the metadata "lines_sweep".

    A shifted pack ("shifted_from") uses its parent's class names and templates, and so the same head.

    Attributes:
        role: "task" or "ood".
        shifted_from: the parent's name, or None.
    """

    def __init__(self, path: Path) -> None:
        """Read the metadata. The parent of a shifted pack must be in the same folder.

        Raises:
            ValueError: if the file or its metadata is missing, an embedded one is damaged, or the parent lacks a class.
        """
        self._path = path
        own = _metadata(path)
        parent = _metadata(path.with_name(f"{own['shifted_from']}.parquet")) if own["shifted_from"] else own
        self.name: str = own["name"]
        self.role: str = own["role"]
        self.shifted_from: str | None = own["shifted_from"]
        self.class_names: list[str] = parent["classes"]
        self.templates: list[str] = parent["templates"]
        self._size: int = own["size"]
        self._labels = [self._parent_label(name) for name in own["classes"]]
        # The labels that `records` returns depend on the parent's class order.
        content = path.read_bytes() + json.dumps(self.class_names).encode()
        self.fingerprint = hashlib.blake2b(content, digest_size=16).hexdigest()

    def parent(self) -> "PackSource | None":
        """Return the pack that this one is shifted from, with the same classes in the same order; None without one."""
        return PackSource(self._path.with_name(f"{self.shifted_from}.parquet")) if self.shifted_from else None

    def _parent_label(self, class_name: str) -> int:
        if class_name not in self.class_names:
            raise ValueError(
                f"{self._path}: class {class_name!r} is not in {self.shifted_from!r}; "
                f"{near(class_name, self.class_names)}"
            )
        return self.class_names.index(class_name)

    def records(self) -> Mapping[str, Sequence[ImageRecord]]:
        """Return the images of val and test."""
        return self._read("val", "test")

    def train_records(self) -> Sequence[ImageRecord]:
        """Return the images of train; a shifted pack has none."""
        return self._read("train")["train"]

    def _read(self, *wanted: str) -> dict[str, list[ImageRecord]]:
        table = pq.read_table(self._path, columns=["image", "label", "split"])
        splits: dict[str, list[ImageRecord]] = {split: [] for split in wanted}
        columns = (table[name].to_pylist() for name in ("image", "label", "split"))
        for row, (image, label, split) in enumerate(zip(*columns, strict=True)):
            if split in splits:
                pixels = np.frombuffer(image, dtype=np.uint8).reshape(3, self._size, self._size).transpose(1, 2, 0)
                record = ImageRecord.from_array(f"{self.name}:{row}", self._labels[label], pixels)
                splits[split].append(record)
        return splits


def _metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such pack; {near(path.stem, (p.stem for p in path.parent.glob('*.parquet')))}")
    check(path)
    try:
        metadata = (pq.read_schema(path).metadata or {}).get(b"lines_sweep")
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
    if metadata is None:
        raise ValueError(f"{path}: not a task pack: its schema has no lines_sweep metadata")
    values: dict[str, Any] = json.loads(metadata)
    return values
