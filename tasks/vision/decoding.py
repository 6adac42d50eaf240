"""Decoding of single images: their pixels, what a user should know of them, and all that cannot be decoded.

Shape legend: N images, H, W height and width.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tasks.vision.images import ImageRecord, Undecodable
from tasks.vision.pixels import BROKEN, is_dim, orientation, reason_of
from tasks.vision.preprocess import Pixels

#: What is counted in a data set, and the text of the warning after the count.
NOTES: Mapping[str, str] = {
    "turned": (
        "have an EXIF orientation, which is ignored, as open_clip does in training and evaluation; to turn them "
        "upright, set options: {exif_orientation: true}"
    ),
    "dim": (
        "are greyscale of 16 bits without a value above 4095, so they are nearly black; if white is 4095 or less in "
        "them, save them with 8 bits"
    ),
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded image.

    Attributes:
        pixels: uint8 of shape (3, H, W); zeros if there is a problem.
        notes: names of `NOTES`.
        problem: why it cannot be decoded, or empty.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive images of a split.

    Attributes:
        pixels_NCHW: uint8.
        notes: how many images each note is about.
        problems: row -> why this image cannot be decoded.
    """

    pixels_NCHW: Pixels
    notes: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Sequence[Decoded]) -> "Part":
        """Join decoded images."""
        problems = {row: image.problem for row, image in enumerate(images) if image.problem}
        notes = Counter(note for image in images for note in image.notes)
        return cls(np.stack([image.pixels for image in images]), notes, problems)


def decode_image(record: ImageRecord, resize: Callable[[Image.Image], Pixels]) -> Decoded:
    """Decode and resize one image.

    Raises:
        Undecodable: if it cannot be decoded.
    """
    try:
        image = record.image() if callable(record.image) else record.image
        if isinstance(image, np.ndarray):
            return _decoded(Image.fromarray(image), resize)
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return _decoded(opened, resize)
    except Undecodable:
        raise
    except BROKEN as error:
        raise Undecodable(record.name, reason_of(error)) from error


def _decoded(image: Image.Image, resize: Callable[[Image.Image], Pixels]) -> Decoded:
    pixels = resize(image)
    noticed = {"turned": orientation(image) != 1, "dim": is_dim(image)}
    return Decoded(pixels, tuple(note for note, holds in noticed.items() if holds))
