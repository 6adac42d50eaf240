"""One split of a published set in its files' order: labels, and images that are read later."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasks.vision.images import Undecodable, Unread
from tasks.vision.pixels import BROKEN, reason_of

#: A file, pixels as uint8 of shape (H, W) or (H, W, 3), or an image that is read when it is decoded.
Picture: TypeAlias = Path | npt.NDArray[np.uint8] | Unread
#: Images and labels of one split; the labels are numbers from 0, in the order of the format's class names.
ReadSplit: TypeAlias = Callable[[Path, str], "Listing"]


class FilesMissing(ValueError):
    """Files of a set are missing or damaged."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Images of one split.

    Attributes:
        images: in the order of the files, which splits by index depend on.
        labels: one an image.
    """

    images: Sequence[Picture]
    labels: Sequence[int]


@dataclass(frozen=True, slots=True)
class Format:
    """The functions that read a layout of files.

    Attributes:
        read: `read(place, split)`, with the layout's name of the split.
        class_names: `class_names(place, split)`, in the order of labels; empty if the files do not name the classes.
    """

    read: ReadSplit
    class_names: Callable[[Path, str], Sequence[str]] = lambda place, split: ()


@dataclass(frozen=True, slots=True)
class FileSlice:
    """An encoded image that is part of a file, for example of a tar shard."""

    path: Path
    offset: int
    size: int

    def __call__(self) -> bytes:
        """Read the image's bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class WithoutBorder:
    """An image file without a border of `pixels` on each side."""

    path: Path
    pixels: int

    def __call__(self) -> npt.NDArray[np.uint8]:
        """Read the pixels (H, W, 3).

        Raises:
            Undecodable: if the file is broken.
            FileNotFoundError: if there is none.
        """
        try:
            with Image.open(self.path) as image:
                width, height = image.size
                inner = image.convert("RGB").crop((self.pixels, self.pixels, width - self.pixels, height - self.pixels))
                return np.asarray(inner)
        except FileNotFoundError:
            raise
        except BROKEN as error:
            raise Undecodable(str(self.path), reason_of(error)) from error
