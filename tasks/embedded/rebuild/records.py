"""The record of an image from any source, and its Parquet files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

SIZE = 32
PACKS = Path(__file__).parents[1] / "packs"
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Item:
    """One drawn or scanned image.

    ``pixels`` is ``(32, 32, 3)`` uint8. ``label`` is a class name of the pack ``pool``, or empty for images that are
    used in pre-training only. Images with the same ``key`` must share a split.
    """

    pool: str
    pixels: Pixels
    label: str
    name: str
    tags: tuple[str, ...]
    key: str
    source: str


def save_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as one Parquet file with planar images."""
    rows = list(items)
    table = pa.table(
        {
            "pool": [r.pool for r in rows],
            "image": pa.array([to_planar(r.pixels) for r in rows], pa.binary(3 * SIZE * SIZE)),
            "label": [r.label for r in rows],
            "name": [r.name for r in rows],
            "tags": [list(r.tags) for r in rows],
            "key": [r.key for r in rows],
            "source": [r.source for r in rows],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def load_items(paths: Sequence[Path]) -> list[Item]:
    """Read the items of several files, in order."""
    items: list[Item] = []
    for path in paths:
        for row in pq.read_table(path).to_pylist():
            pixels = from_planar(row["image"])
            items.append(
                Item(row["pool"], pixels, row["label"], row["name"], tuple(row["tags"]), row["key"], row["source"])
            )
    return items


def load_split(name: str, split: str) -> tuple[Pixels, NDArray[np.int64]]:
    """Read planar images (n, 3, 32, 32) and labels (n,) of one split of a pack."""
    table = pq.read_table(PACKS / f"{name}.parquet", filters=[("split", "=", split)])
    images = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 3, SIZE, SIZE)
    return images, table["label"].to_numpy().astype(np.int64)


def to_planar(pixels: Pixels) -> bytes:
    """Return the bytes of an image as C, H, W."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()


def from_planar(data: bytes) -> Pixels:
    """Return an image of shape (32, 32, 3) from its C, H, W bytes."""
    return np.frombuffer(data, np.uint8).reshape(3, SIZE, SIZE).transpose(1, 2, 0)


def posterise(pixels: Pixels) -> Pixels:
    """Keep five bits a channel, which nearly halves the packs and changes no label."""
    return ((pixels & 0xF8) | (pixels >> 5)).astype(np.uint8)


def grey_to_rgb(grey: Pixels) -> Pixels:
    """Repeat a (32, 32) image over three channels."""
    return np.repeat(grey[:, :, None], 3, 2)
