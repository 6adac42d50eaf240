"""Pillow images before open_clip's transform: greyscale of more than 8 bits, and the camera's orientation."""

import struct

import numpy as np
from PIL import ExifTags, Image

#: EXIF orientation -> how to turn the stored pixels upright; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
#: TIFF's tags, and the value of the second that means "0 is white".
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
#: Raised by Pillow's readers on broken files, in addition to its own errors.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    AttributeError,
    struct.error,
    Image.DecompressionBombError,
)


def eight_bits(image: Image.Image) -> Image.Image:
    """Return greyscale of 16 bits as greyscale of 8 bits, and any other mode unchanged.

    The high byte is taken, as Pillow does when it reads RGB of 16 bits. open_clip's transform calls convert("RGB"),
    which would make every value above 255 white.

    Raises:
        ValueError: if the values are floating-point, or integers beyond 16 bits, so that the value of white is unknown.
    """
    if image.mode == "F":
        raise ValueError("its values are floating-point, so the value of white is unknown: save it with 8 or 16 bits")
    if not _deep(image):
        return image
    values_HW = np.asarray(image).astype(np.int32)
    low, high = int(values_HW.min()), int(values_HW.max())
    bits = _bits(image)
    if low < 0 or high >= 2**bits:
        raise ValueError(
            f"its values reach from {low} to {high}, so the value of white is unknown: save it with 8 or {bits} bits"
        )
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        values_HW = 2**bits - 1 - values_HW
    return Image.fromarray((values_HW >> (bits - 8)).astype(np.uint8))


def is_dim(image: Image.Image) -> bool:
    """Return whether greyscale of 16 bits uses 12 of them at most, as the files of many cameras do."""
    return _deep(image) and _bits(image) == 16 and 0 < int(np.asarray(image).max()) < 2**12


def _deep(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _bits(image: Image.Image) -> int:
    """Return the bits of a grey value: 16, or 12 in a TIFF that states so."""
    return 12 if _tag(image, _BITS_PER_SAMPLE) == (12,) else 16


def _tag(image: Image.Image, number: int) -> object:
    return getattr(image, "tag_v2", {}).get(number)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, which is upright, if there is none or it cannot be read.

    Pillow turns TIFF files itself.
    """
    image.load()  # the chunk of a PNG may follow its pixels
    if not any(name in image.info for name in _EXIF):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except BROKEN:
        return 1
    return value if value in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation states."""
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def reason_of(error: Exception) -> str:
    """Return what one of `BROKEN` means, and what to do if the image is too large."""
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        return f"it has more than {limit} megapixels, the most that is read: save a smaller copy"
    return str(error) or type(error).__name__
