"""Decoded and resized images in Arrow files, written once, which every worker maps into memory.

Shape legend: N images of a split, C, H, W channels, height and width. Pixels are uint8.
"""

import hashlib
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tasks.cores import permitted_cores
from tasks.files.cache import cache_root, cached, digest, is_cached
from tasks.files.columns import column
from tasks.vision.decoding import NOTES, Decoded, Part, decode_image
from tasks.vision.images import (
    BadImages,
    ImageRecord,
    ImageSource,
    TrainingSource,
    Undecodable,
    for_training,
    ordered,
    without_leaks,
)
from tasks.vision.preprocess import Pixels, Preprocess

#: Called as `progress(done, total)` while images are decoded.
Progress: TypeAlias = Callable[[int, int], None]
#: `decode(records, preprocess, rows)` yields the images in order, `rows` at a time; the last part may be shorter.
Decode: TypeAlias = Callable[[Sequence[ImageRecord], Preprocess, int], Iterator[Part]]

#: Part of the cache key: raise it whenever the files' layout or the order of images changes.
_FORMAT = "1"
CHUNK_BYTES = 64 * 2**20
#: Chunks hold a multiple of this many images, so that batches of 128 or 256 seldom straddle two of them.
CHUNK_UNIT = 256


@dataclass(frozen=True)
class ImageSet:
    """One decoded split.

    Attributes:
        chunks: uint8 tensors of shape (chunk_size, C, H, W); the last may be shorter.
        chunk_size: images a chunk.
        labels_N: int64.
        keys: content hash of each image's source, hexadecimal.
        fingerprint: content hash of pixels and labels, in order.
        notes: how many images each of `tasks.vision.decoding.NOTES` is about.
    """

    chunks: tuple[Tensor, ...]
    chunk_size: int
    labels_N: Tensor
    keys: tuple[str, ...]
    fingerprint: str
    notes: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels_N)

    def slice(self, start: int, stop: int) -> Tensor:
        """Return images start to stop - 1 as one uint8 tensor; a view unless they straddle two chunks."""
        first, last = start // self.chunk_size, (stop - 1) // self.chunk_size
        parts = [
            self.chunks[i][max(start - i * self.chunk_size, 0) : stop - i * self.chunk_size]
            for i in range(first, last + 1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def take(self, rows_B: Tensor) -> Tensor:
        """Return the images of some rows, int64 (B,) on the CPU, as one uint8 tensor."""
        chunks_B = rows_B // self.chunk_size
        images = self.chunks[0].new_empty((len(rows_B), *self.chunks[0].shape[1:]))
        for chunk in sorted(set(chunks_B.tolist())):
            places = torch.nonzero(chunks_B == chunk).flatten()
            places, own = places.to(images.device), (rows_B[places] - chunk * self.chunk_size).to(images.device)
            images[places] = self.chunks[chunk][own]
        return images

    def to(self, device: torch.device, count: int) -> "ImageSet":
        """Copy the first `count` images and labels to an accelerator.

        On the CPU this returns the mapped files themselves, whose pages the workers of one machine share.
        """
        if device.type == "cpu":
            return self
        starts = range(0, count, self.chunk_size)
        chunks = tuple(self.slice(i, min(i + self.chunk_size, count)).to(device) for i in starts)
        labels_N = self.labels_N[:count].to(device)
        return ImageSet(chunks, self.chunk_size, labels_N, self.keys[:count], self.fingerprint, self.notes)


def decode_here(records: Sequence[ImageRecord], preprocess: Preprocess, rows: int) -> Iterator[Part]:
    """Decode and resize with threads of this process; a `Decode`."""
    attempt = decoder(preprocess)
    with ThreadPoolExecutor(permitted_cores().permitted) as pool:
        for start in range(0, len(records), rows):
            yield Part.of(list(pool.map(attempt, records[start : start + rows])))


def decoder(preprocess: Preprocess) -> Callable[[ImageRecord], Decoded]:
    """Return a function that decodes and resizes an image, and returns what is wrong with one that it cannot decode."""
    resize = preprocess.resizer()

    def attempt(record: ImageRecord) -> Decoded:
        try:
            return decode_image(record, resize)
        except Undecodable as error:
            return Decoded(np.zeros((3, *preprocess.size), np.uint8), problem=error.reason)

    return attempt


def prepare(
    source: ImageSource, preprocess: Preprocess, progress: Progress | None = None, decode: Decode = decode_here
) -> dict[str, ImageSet]:
    """Map the splits of `source` into memory, and decode them first if the cache does not hold them.

    Raises:
        BadImages: if images cannot be decoded, all of them.
        ValueError: if there is no image or not enough space.
    """
    folder = cached(
        prepared_folder(source, preprocess),
        lambda partial: _write_splits(partial, source.name, _scored(source), preprocess, progress, decode),
    )
    return {path.stem: _read(path) for path in sorted(folder.glob("*.arrow"))}


def count_images(source: ImageSource, preprocess: Preprocess) -> dict[str, int]:
    """Count the images of each split without decoding any.

    Raises:
        ValueError: if there is none.
    """
    if is_cached(folder := prepared_folder(source, preprocess)):
        return {path.stem: len(_read(path)) for path in folder.glob("*.arrow")}
    return {split: len(records) for split, records in _scored(source).items()}


def prepared_folder(source: ImageSource, preprocess: Preprocess) -> Path:
    """Return the cache folder of the decoded val and test of `source`."""
    return cache_root() / "images" / digest([_FORMAT, source.fingerprint, preprocess.resize_key])


def prepare_train(source: ImageSource, preprocess: Preprocess, progress: Progress | None = None) -> ImageSet:
    """Map the training images of `source`, without images that are scored; they have a cache entry of their own.

    Raises:
        ValueError: if there is none; or see `prepare`.
    """
    key = digest([_FORMAT, source.fingerprint, preprocess.resize_key, "train"])
    folder = cached(
        cache_root() / "images" / key,
        lambda partial: _write_splits(partial, source.name, _training(source), preprocess, progress, decode_here),
    )
    return _read(folder / "train.arrow")


def _scored(source: ImageSource) -> dict[str, list[ImageRecord]]:
    splits = {s: ordered(r) for s, r in without_leaks(source.records(), source.name).items() if r}
    if not splits:
        raise ValueError(f"{source.name}: holds no images for val or test")
    return splits


def _training(source: ImageSource) -> dict[str, list[ImageRecord]]:
    train = source.train_records() if isinstance(source, TrainingSource) else ()
    records = ordered(for_training(train, source.records(), source.name)) if train else []
    if not records:
        raise ValueError(
            f"{source.name}: holds no training images: put them into train/CLASS/ next to val or test of a folder of "
            "images, or return them by train_records() of your own source"
        )
    return {"train": records}


def _write_splits(
    folder: Path,
    where: str,
    splits: Mapping[str, Sequence[ImageRecord]],
    preprocess: Preprocess,
    progress: Progress | None,
    decode: Decode,
) -> None:
    total = sum(map(len, splits.values()))
    folder.mkdir()
    _check_space(folder, total * 3 * preprocess.size[0] * preprocess.size[1])
    done, bad = 0, list[Undecodable]()
    for split, records in splits.items():
        for count, unread in _write_split(folder / f"{split}.arrow", records, preprocess, decode):
            done += count
            bad += unread
            if progress:
                progress(done, total)
    if bad:
        raise BadImages(where, bad)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"cache {folder.parent}: no space left: the decoded images need {needed / 1e9:.2f} GB, and "
            f"{free / 1e9:.2f} GB are free; free some, or set LINES_SWEEP_CACHE to another folder"
        )


def _write_split(
    path: Path, records: Sequence[ImageRecord], preprocess: Preprocess, decode: Decode
) -> Iterator[tuple[int, list[Undecodable]]]:
    """Write one uncompressed Arrow IPC file, a record batch a chunk; yield how many images each has, and bad ones."""
    height, width = preprocess.size
    rows = max(1, CHUNK_BYTES // (3 * height * width) // CHUNK_UNIT) * CHUNK_UNIT
    metadata = {"shape": json.dumps([3, height, width]), "chunk_size": str(rows)}
    schema = pa.schema(
        [
            pa.field("image", pa.binary(3 * height * width)),
            pa.field("label", pa.int64()),
            pa.field("key", pa.string()),
            pa.field("name", pa.string()),
        ],
        metadata=metadata,
    )
    content, notes = hashlib.blake2b(digest_size=16), Counter[str]()
    with path.open("wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start, decoded in zip(range(0, len(records), rows), decode(records, preprocess, rows), strict=True):
            part = records[start : start + rows]
            labels = np.array([r.label for r in part], dtype=np.int64)
            content.update(decoded.pixels_NCHW.tobytes())
            content.update(labels.tobytes())
            notes.update(decoded.notes)
            writer.write_batch(_batch(schema, decoded.pixels_NCHW, labels, part))
            yield len(part), [Undecodable(part[row].name, problem) for row, problem in decoded.problems.items()]
    path.with_suffix(".json").write_text(
        json.dumps({"fingerprint": content.hexdigest(), "notes": dict(sorted(notes.items()))})
    )


def _batch(schema: Any, pixels_NCHW: Pixels, labels_N: Any, part: Sequence[ImageRecord]) -> Any:
    images = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("image").type, len(part), [None, pa.py_buffer(pixels_NCHW.reshape(-1))]
    )
    labels = column(labels_N, pa.int64())
    keys, names = (column(texts, pa.string()) for texts in ([r.digest.hex() for r in part], [r.name for r in part]))
    return pa.RecordBatch.from_arrays([images, labels, keys, names], schema=schema)


def noted(splits: Iterable[ImageSet], preprocess: Preprocess) -> Iterator[str]:
    """Yield what a user should know of images that may not be seen as they are meant."""
    splits = list(splits)
    counts = sum((Counter(images.notes) for images in splits), Counter[str]())
    for note, text in NOTES.items():
        if counts[note] and not (note == "turned" and preprocess.exif_orientation):
            yield f"{counts[note]} of {sum(map(len, splits))} images {text}"


def _read(path: Path) -> ImageSet:
    table = pa.ipc.open_file(pa.memory_map(str(path)))
    shape: list[int] = json.loads(table.schema.metadata[b"shape"])
    batches = [table.get_batch(i) for i in range(table.num_record_batches)]
    manifest: Mapping[str, Any] = json.loads(path.with_suffix(".json").read_text())
    keys = pa.Table.from_batches(batches)["key"]
    # Arrow's own `to_numpy` would import pandas, which takes a second.
    labels = [np.from_dlpack(batch.column("label")) for batch in batches]
    return ImageSet(
        chunks=tuple(_pixels(batch, shape) for batch in batches),
        chunk_size=int(table.schema.metadata[b"chunk_size"]),
        labels_N=torch.from_numpy(np.concatenate(labels)),
        keys=tuple(keys.to_pylist()),
        fingerprint=manifest["fingerprint"],
        notes=manifest.get("notes", {}),
    )


def _pixels(batch: Any, shape: Sequence[int]) -> Tensor:
    array = np.frombuffer(
        batch.column("image").buffers()[1], dtype=np.uint8, count=batch.num_rows * int(np.prod(shape))
    )
    with warnings.catch_warnings():
        # torch warns of any read-only array; nothing here writes to the mapping.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array.reshape(-1, *shape))
