"""Labelled images before decoding: records, their sources, and how they are split and ordered."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

#: Bad images that an error names.
_NAMED = 20


class Unread(Protocol):
    """An image that is read when it is decoded, for example one in an archive.

    It must be picklable: another process may decode it.
    """

    def __call__(self) -> bytes | npt.NDArray[np.uint8]:
        """Return the encoded image, or its pixels."""
        ...


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set.

    Attributes:
        name: where it came from, for errors (a file name, or "pack:row").
        label: index into the source's class names.
        digest: content hash, 16 bytes: of the file's bytes, or of the pixels.
        image: a file, pixels as uint8 of shape (H, W) or (H, W, 3), or a callable that returns either.

    Example:
        >>> pixels = np.zeros((32, 32, 3), np.uint8)
        >>> ImageRecord.from_array("test:0", label=1, pixels_HWC=pixels).label
        1
    """

    name: str
    label: int
    digest: bytes
    image: Path | npt.NDArray[np.uint8] | Unread

    @classmethod
    def from_array(cls, name: str, label: int, pixels_HWC: npt.NDArray[np.uint8]) -> "ImageRecord":
        """Make a record of pixels in memory, uint8 of shape (H, W, 3)."""
        return cls(name, label, content_hash(np.ascontiguousarray(pixels_HWC).tobytes()), pixels_HWC)


class Undecodable(ValueError):
    """One image that cannot be decoded; `reason` is the text without its name."""

    def __init__(self, name: str, reason: str) -> None:
        """Take the image's name and Pillow's error or ours."""
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        """Name the image, the reason, and what to do."""
        return f"{self.name}: cannot decode this image ({self.reason}); repair or remove it"


class BadImages(ValueError):
    """All images of a data set that cannot be decoded."""

    def __init__(self, where: str, bad: Sequence[Undecodable]) -> None:
        """Take the data set's name and at least one image."""
        super().__init__(where, bad)
        self.where, self.bad = where, sorted(bad, key=lambda one: one.name)

    def __str__(self) -> str:
        """Count the images, and name the first."""
        if len(self.bad) == 1:
            return str(self.bad[0])
        lines = [f"{self.where}: {len(self.bad)} images cannot be decoded; repair or remove them:"]
        lines += [f"  {one.name}: {one.reason}" for one in self.bad[:_NAMED]]
        return "\n".join([*lines, f"  and {len(self.bad) - _NAMED} more"] if self.bad[_NAMED:] else lines)


def all_read(where: str, found: Iterable[ImageRecord | Undecodable]) -> list[ImageRecord]:
    """Return the records of a data set.

    Raises:
        BadImages: if images cannot be read, all of them.
    """
    found = list(found)
    if bad := [one for one in found if isinstance(one, Undecodable)]:
        raise BadImages(where, bad)
    return [one for one in found if isinstance(one, ImageRecord)]


class ImageSource(Protocol):
    """A data set of images; implement this to score your own data by zero-shot classification."""

    @property
    def name(self) -> str:
        """Name in errors and progress."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes in prompts, in the order of the labels."""
        ...

    @property
    def templates(self) -> Sequence[str]:
        """Prompts with one {} for the class name."""
        ...

    @property
    def fingerprint(self) -> str:
        """A key that changes whenever the result of `records` does; computed at every start, so it must be cheap."""
        ...

    def records(self) -> Mapping[str, Sequence[ImageRecord]]:
        """Return all images by split, "val" and "test". Called only if the cache has no entry for `fingerprint`."""
        ...


@runtime_checkable
class GroupedSource(ImageSource, Protocol):
    """A source whose classes are groups of `class_names`; labels are indices of groups."""

    @property
    def class_groups(self) -> Sequence[Sequence[int]]:
        """Indices into `class_names` of each class; empty if each name is a class."""
        ...


@runtime_checkable
class TrainingSource(ImageSource, Protocol):
    """A source with training images for fine-tuning; evaluation never reads them."""

    def train_records(self) -> Sequence[ImageRecord]:
        """Return the images of "train", perhaps none. Images that `records` returns too are left out of training."""
        ...


def content_hash(data: bytes, salt: str = "") -> bytes:
    """Return 16 bytes of blake2b of `data`, different for each `salt`.

    Example:
        >>> content_hash(b"an image's bytes").hex()
        '298c3509fde12e982d22dfa2797e1287'
    """
    return hashlib.blake2b(data, digest_size=16, salt=salt.encode()).digest()


def in_validation(digest: bytes, fraction: float) -> bool:
    """Return whether the image with this content belongs to validation: a fixed fraction, by its hash alone.

    Copies of an image are on the same side, and adding images moves none of the others. The salt makes this independent
    of the order within a split, so that the first N images of a split are not special.
    """
    return int.from_bytes(content_hash(digest, "split")[:8], "big") < fraction * 2**64


def ordered(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """Sort a split by content hash: the first N images mix the classes, and are the same on every machine."""
    return sorted(records, key=lambda r: (content_hash(r.digest, "order"), r.name))


def without_leaks(splits: Mapping[str, Sequence[ImageRecord]], where: str) -> dict[str, list[ImageRecord]]:
    """Drop exact copies of "test" images from "val", so that nothing is chosen on test images.

    The test split stays whole, so that its scores compare with published ones.
    """
    test = list(splits.get("test", ()))
    return {s: test if s == "test" else _without(records, test, where, s, "test") for s, records in splits.items()}


def for_training(
    train: Iterable[ImageRecord], scored: Mapping[str, Sequence[ImageRecord]], where: str
) -> list[ImageRecord]:
    """Drop exact copies of scored images from "train": a score on memorised images means nothing."""
    return _without(train, [r for records in scored.values() for r in records], where, "train", "val or test")


def _without(
    records: Iterable[ImageRecord], kept: Iterable[ImageRecord], where: str, split: str, others: str
) -> list[ImageRecord]:
    records, held_out = list(records), {r.digest for r in kept}
    clean = [r for r in records if r.digest not in held_out]
    if dropped := len(records) - len(clean):
        logger.warning("%s: left %d images out of %s: exact copies are in %s", where, dropped, split, others)
    return clean
