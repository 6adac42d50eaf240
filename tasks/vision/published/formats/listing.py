"""One split of a published set as its files have it: images that are read later, and labels, in their own order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.vision.images import Unread

#: A file, pixels as uint8 of shape (H, W) or (H, W, 3), or an image that is read when it is decoded.
Picture: TypeAlias = Path | npt.NDArray[np.uint8] | Unread
#: Images and labels of one split; the labels are numbers from 0, in the order of the format's class names.
ReadSplit: TypeAlias = Callable[[Path, str], "Listing"]


class FilesMissing(ValueError):
    """The files of a set are not there, not all of them, or not whole."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Images of one split.

    Attributes:
        images: in the order of the files, on which splits by index stand.
        labels: one an image.
    """

    images: Sequence[Picture]
    labels: Sequence[int]


@dataclass(frozen=True, slots=True)
class Format:
    """How a layout of files is read.

    Attributes:
        read: `read(place, split)`, where `split` is what the layout calls it.
        class_names: `class_names(place, split)`, in the order of labels; empty where the files do not name them.
    """

    read: ReadSplit
    class_names: Callable[[Path, str], Sequence[str]] = lambda place, split: ()


@dataclass(frozen=True, slots=True)
class FileSlice:
    """An encoded image that is a part of a file: of a tar shard, say."""

    path: Path
    offset: int
    size: int

    def __call__(self) -> bytes:
        """The image's bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class WithoutBorder:
    """An image file less a border of `pixels` on each side."""

    path: Path
    pixels: int

    def __call__(self) -> npt.NDArray[np.uint8]:
        """Pixels (H, W, 3)."""
        with Image.open(self.path) as image:
            width, height = image.size
            inner = image.convert("RGB").crop((self.pixels, self.pixels, width - self.pixels, height - self.pixels))
            return np.asarray(inner)
