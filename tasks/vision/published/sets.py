"""Published image sets as image sources, with the authors' prompts, splits and counts."""

import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from tasks.files.cache import digest
from tasks.vision.file_tree import FileTree
from tasks.vision.images import ImageRecord, Undecodable, all_read, content_hash
from tasks.vision.libraries import open_clip
from tasks.vision.published.catalogue import VisionSet
from tasks.vision.published.files import VisionOptions, by_hand, find_files
from tasks.vision.published.formats.listing import FilesMissing, Listing, Picture
from tasks.vision.published.formats.names import label_order
from tasks.vision.published.formats.objectnet import imagenet_groups
from tasks.vision.published.formats.splits import Indices, cut_validation, held_out_by_file

logger = logging.getLogger(__name__)
T = TypeVar("T")

_SPLITS = ("train", "val", "test")
#: Errors of reading truncated files, or files of another layout.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, struct.error)


class VisionSource:
    """One published set, read from the files of one layout.

    Val is the set's own if it has one, else the authors' cut of the training images by index. Test is always whole.
    """

    def __init__(self, entry: VisionSet, options: VisionOptions) -> None:
        """Find the files and their class names.

        Raises:
            FilesMissing: if there are no files; the message explains how to get them.
            ValueError: if their classes are not the set's.
        """
        self.name = f"vision/{entry.name}"
        self.templates = entry.templates
        self._entry, self._options = entry, options
        self._layout, self._format, self._place = find_files(entry, options)
        own = self._own_names("test")
        self._num_classes = entry.counts["classes"] if not own else len(own)
        self.class_groups: Sequence[Sequence[int]] = ()
        self.class_names, self._labels = self._classes(own)

    def _classes(self, own: Sequence[str]) -> tuple[list[str], list[int]]:
        """Return the names of the head's rows, and the label of each of the files' classes."""
        if self._layout.format == "objectnet":
            groups = self._guarded(lambda: imagenet_groups(self._place))
            rows = sorted({row for group in groups for row in group})
            self.class_groups = [[rows.index(row) for row in group] for group in groups]
            return [open_clip.IMAGENET_CLASSNAMES[row] for row in rows], list(range(len(groups)))
        names, keys = self._entry.class_names()
        if not names:
            return [self._entry.prompt_name(name) for name in own], list(range(len(own)))
        if not own or (self._options.by_order and len(own) == len(names)):
            return list(names), list(range(len(names)))
        return list(names), label_order(own, names, keys, f"{self.name}: {self._place}")

    def _own_names(self, split: str) -> Sequence[str]:
        return self._guarded(partial(self._format.class_names, self._place, self._layout.splits[split]))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that `records` depends on; sizes and times of the files stand for their bytes."""
        return self._guarded(lambda: digest(self._described()))

    def _described(self) -> Iterator[str]:
        options = self._options
        yield from (self.name, self._layout.format, str(self._layout.splits), *self.class_names)
        yield from map(str, (self.class_groups, self._labels))
        # Counts are checked when images are read, so an unchecked entry must not serve a spec that checks.
        yield str(options.check_counts)
        yield from _stamps(self._place)
        if options.val_index is not None:
            yield str(options.val_index)
            yield content_hash(options.val_index.read_bytes()).hex() if options.val_index.is_file() else "missing"

    def records(self) -> Mapping[str, Sequence[ImageRecord]]:
        """Hash the images of val and test.

        Raises:
            FilesMissing: if the counts are not the published ones, or a file is not in its layout.
        """
        listings = self.check()
        found = {"test": self._hashed("test", listings["test"], None)}
        if "val" in listings:
            found["val"] = self._hashed("val", listings["val"], None)
        elif "train" in listings:
            found["val"] = self._hashed("train", listings["train"], self._cut(listings["train"])[1])
        return found

    def check(self) -> Mapping[str, Listing]:
        """List train, val and test in the files' order, and compare their counts with the published ones.

        Raises:
            FilesMissing: see `records`.
        """
        listings = self._listings()
        self._check_counts(listings)
        return listings

    def train_records(self) -> Sequence[ImageRecord]:
        """Hash the training images that are not cut for val."""
        listings = self._listings()
        if "train" not in listings:
            return []
        rows = None if "val" in listings else self._cut(listings["train"])[0]
        return self._hashed("train", listings["train"], rows)

    def _listings(self) -> dict[str, Listing]:
        splits = {s: self._layout.splits[s] for s in _SPLITS if s in self._layout.splits}
        classes = {split: list(self._own_names(split)) for split in splits}
        if odd := [split for split, names in classes.items() if names != classes["test"]]:
            differ = sorted(set(classes[odd[0]]) ^ set(classes["test"]))
            raise FilesMissing(
                f"{self.name}: {self._place}: {odd[0]} and test must have the same classes in the same order: "
                f"{differ[:3]} are in one of them only"
            )
        listings = {s: self._guarded(partial(self._format.read, self._place, own)) for s, own in splits.items()}
        for split, listing in listings.items():
            if strange := sorted(set(listing.labels) - set(range(len(self._labels)))):
                raise FilesMissing(
                    f"{self.name}: {self._place}: {split} has images labelled {strange[0]}, counted from 0, and the "
                    f"set has {len(self._labels)} classes: are labels withheld, or is it another set?"
                )
        return listings

    def _guarded(self, read: Callable[[], T]) -> T:
        """Turn errors of unexpected files into one that explains how to get the right ones."""
        try:
            return read()
        except FilesMissing:
            raise
        except _UNREADABLE as error:
            raise FilesMissing(
                f"{self.name}: {self._place}: cannot be read as {self._layout.format} ({type(error).__name__}: "
                f"{error}); to get it: {by_hand(self._entry, self._options)}"
            ) from error

    def _cut(self, train: Listing) -> tuple[Indices, Indices]:
        if self._options.val_index is not None:
            return held_out_by_file(self._options.val_index, len(train.labels))
        if self._entry.name == "ImageNet":
            logger.warning(
                "%s: val is cut from train as for the other sets; for the 26,000 images of model-soups set val_index "
                "to its imagenet_98_idxs.npy",
                self.name,
            )
        return cut_validation(len(train.labels))

    def _check_counts(self, listings: Mapping[str, Listing]) -> None:
        expected = self._entry.counts
        got = {split: len(listing.labels) for split, listing in listings.items()} | {"classes": self._num_classes}
        if not any(got.get(what, n) != n for what, n in expected.items()):
            return
        wanted, present = (", ".join(f"{n} {what}" for what, n in counts.items()) for counts in (expected, got))
        message = (
            f"{self.name}: {self._place}: expected {wanted}; got {present}: usually an archive that was not "
            "fully unpacked, or another version of the set"
        )
        if self._options.check_counts and not self._entry.counts_inferred:
            raise FilesMissing(f"{message}; to use these files, set the option check_counts: false")
        logger.warning("%s", message)

    def _hashed(self, split: str, listing: Listing, rows: Indices | None) -> list[ImageRecord]:
        def record(row: int) -> ImageRecord | Undecodable:
            image = listing.images[row]
            name = str(image) if isinstance(image, Path) else f"{self.name}:{split}[{row}]"
            try:
                return ImageRecord(name, self._labels[listing.labels[row]], content_hash(_content(image)), image)
            except Undecodable as error:
                return error

        chosen = range(len(listing.labels)) if rows is None else rows.tolist()
        with ThreadPoolExecutor() as pool:
            found = self._guarded(lambda: list(pool.map(record, chosen)))
        return all_read(self.name, found)


def _content(image: Picture) -> bytes:
    read = image() if callable(image) else image
    if isinstance(read, np.ndarray):
        return np.ascontiguousarray(read).tobytes()
    return read if isinstance(read, bytes) else read.read_bytes()


def _stamps(folder: Path) -> Iterator[str]:
    """Yield path, size and times of every file below, in a fixed order; the change time cannot be set back."""
    tree = FileTree(folder)
    for top, names in tree.walk(folder):
        for path in (os.path.join(top, name) for name in names):
            stat = os.stat(path)
            yield f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    tree.check()
