"""Labelled images before they are decoded: records, where they come from, and how they are split and ordered."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)


class Unread(Protocol):
    """An image that is read when it is decoded, as one in an archive; picklable, for it may be decoded elsewhere."""

    def __call__(self) -> bytes | npt.NDArray[np.uint8]:
        """The encoded image, or its pixels."""
        ...


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set.

    Attributes:
        name: where it came from, for errors (a file name, or "pack:row").
        label: index into the source's class names.
        digest: content hash, 16 bytes: of the file's bytes, or of the pixels.
        image: a file, pixels as uint8 of shape (H, W) or (H, W, 3), or something that gives either when it is called.
    """

    name: str
    label: int
    digest: bytes
    image: Path | npt.NDArray[np.uint8] | Unread

    @classmethod
    def from_array(cls, name: str, label: int, pixels_HWC: npt.NDArray[np.uint8]) -> "ImageRecord":
        """A record of pixels in memory, uint8 of shape (H, W, 3)."""
        return cls(name, label, content_hash(np.ascontiguousarray(pixels_HWC).tobytes()), pixels_HWC)


class ImageSource(Protocol):
    """Where a task's images come from: implement this to score a data set of your own by zero-shot classification."""

    @property
    def name(self) -> str:
        """For errors and progress."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """What the labels mean, as prompts name them."""
        ...

    @property
    def templates(self) -> Sequence[str]:
        """Prompts with one {} for the class name."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever `records` would give anything else; cheap, for it is asked at every start."""
        ...

    def records(self) -> Mapping[str, Sequence[ImageRecord]]:
        """All images by split, "val" and "test"; read once, when the data are prepared."""
        ...


@runtime_checkable
class GroupedSource(ImageSource, Protocol):
    """A source whose classes are several of `class_names` each: the labels are indices of groups."""

    @property
    def class_groups(self) -> Sequence[Sequence[int]]:
        """Indices of `class_names` of each class; empty where the classes are the names themselves."""
        ...


@runtime_checkable
class TrainingSource(ImageSource, Protocol):
    """A source that has training images too, for fine-tuning; evaluation never asks for them."""

    def train_records(self) -> Sequence[ImageRecord]:
        """The images of "train", none where there are none; those of `records` may be among them, and are left out."""
        ...


def content_hash(data: bytes, salt: str = "") -> bytes:
    """16 bytes of blake2b of `data`, different for each `salt`."""
    return hashlib.blake2b(data, digest_size=16, salt=salt.encode()).digest()


def in_validation(digest: bytes, fraction: float) -> bool:
    """Whether the image with this content belongs to validation: a fixed fraction, by its hash and nothing else.

    Copies of one image fall on the same side, and more images later move none of the present ones. The salt makes this
    independent of the order within a split, so that the first N of a split are no special ones.
    """
    return int.from_bytes(content_hash(digest, "split")[:8], "big") < fraction * 2**64


def ordered(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """The deterministic order of a split, by content hash: the first N are class-mixed, and the same everywhere."""
    return sorted(records, key=lambda r: (content_hash(r.digest, "order"), r.name))


def without_leaks(splits: Mapping[str, Sequence[ImageRecord]], where: str) -> dict[str, list[ImageRecord]]:
    """Drop from "val" whatever is in "test" too, byte for byte: what is chosen must not have seen the test.

    The test split stays whole, so that its numbers compare with published ones.
    """
    test = {r.digest for r in splits.get("test", ())}
    clean = {s: [r for r in records if s == "test" or r.digest not in test] for s, records in splits.items()}
    if dropped := sum(map(len, splits.values())) - sum(map(len, clean.values())):
        logger.warning("%s: left %d images out of val, for exact copies of them are in test", where, dropped)
    return clean


def for_training(
    train: Iterable[ImageRecord], scored: Mapping[str, Sequence[ImageRecord]], where: str
) -> list[ImageRecord]:
    """Drop from "train" whatever is scored too, byte for byte: a score of what was learned by heart says nothing."""
    held_out = {r.digest for records in scored.values() for r in records}
    train = list(train)
    clean = [r for r in train if r.digest not in held_out]
    if dropped := len(train) - len(clean):
        logger.warning("%s: left %d images out of train, for exact copies of them are in val or test", where, dropped)
    return clean
