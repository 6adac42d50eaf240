"""Proves that greyscale of more than 8 bits keeps its brightness, and that EXIF orientations are counted or applied."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import image_transform
from PIL import ExifTags, Image, ImageOps

from tasks.vision.decoded import noted, prepare
from tasks.vision.folders import FolderSource
from tasks.vision.pixels import eight_bits, is_dim, orientation, upright
from tasks.vision.preprocess import Preprocess

PLAIN = Preprocess((16, 16), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), "bicubic", "shortest")
TURNED = Preprocess((16, 16), PLAIN.mean, PLAIN.std, "bicubic", "shortest", exif_orientation=True)
GREY = np.random.default_rng(0).integers(0, 256, (24, 20), dtype=np.uint8)


def reopened(image: Image.Image, form: str, **how: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, form, **how)
    return Image.open(file)


def deep(values: np.ndarray) -> dict[str, Image.Image]:
    """Return 16-bit values in every mode and file that Pillow writes and reads."""
    tiff = Image.fromarray(values.astype(">u2"))
    pgm = b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes()
    return {
        "PNG": reopened(Image.fromarray(values), "PNG"),
        "TIFF": reopened(Image.fromarray(values), "TIFF"),
        "big-endian TIFF": reopened(tiff, "TIFF"),
        "32-bit TIFF": reopened(Image.fromarray(values.astype(np.int32)), "TIFF"),
        "PGM": Image.open(io.BytesIO(pgm)),
        "array": Image.fromarray(values),
    }


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF", "32-bit TIFF", "PGM", "array"])
@pytest.mark.parametrize("white", [255 * 257, 255 * 256])
def test_16_bit_greyscale_has_the_pixels_of_8_bits(kind: str, white: int) -> None:
    image = deep(GREY.astype(np.uint16) * (white // 255))[kind]
    assert image.mode in ("I", "I;16", "I;16B")
    assert np.array_equal(np.asarray(eight_bits(image)), GREY)
    assert np.array_equal(PLAIN.resizer()(image), PLAIN.resizer()(Image.fromarray(GREY)))


def test_a_value_of_16_bits_is_read_by_its_high_byte() -> None:
    values = np.array([[0, 255, 256, 511, 32768, 65279, 65280, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 254, 255, 255]
    assert [np.asarray(eight_bits(image)).tolist() for image in deep(values).values()] == [[expected]] * 6


@pytest.mark.parametrize(("form", "samples"), [("PNG", 2), ("PNG", 3), ("PNG", 4), ("TIFF", 3), ("TIFF", 4)])
def test_16_bit_colours_keep_their_brightness(form: str, samples: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 20, samples), dtype=np.uint8)
    if samples in (2, 4):
        pixels[..., -1] = 255  # opaque
    image = Image.open(io.BytesIO({"PNG": png_of_16_bits, "TIFF": tiff_of_16_bits}[form](pixels)))
    assert np.array_equal(PLAIN.resizer()(image), PLAIN.resizer()(Image.fromarray(pixels)))


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    height, width, samples = pixels.shape
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, {2: 4, 3: 2, 4: 6}[samples], 0, 0, 0])
    rows = b"".join(b"\0" + (row.astype(np.uint16) * 257).astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff_of_16_bits(pixels: np.ndarray) -> bytes:
    height, width, samples = pixels.shape
    data = (pixels.astype(np.uint16) * 257).astype("<u2").tobytes()
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, samples, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 0), (277, 3, 1, samples), (278, 4, 1, height), (279, 4, 1, len(data))]
    entries += [(338, 3, 1, 2)] * (samples == 4)
    start = 8 + 2 * samples + 2 + 12 * len(entries) + 4
    fixed = [(tag, kind, count, start if tag == 273 else value) for tag, kind, count, value in entries]
    directory = len(entries).to_bytes(2, "little") + b"".join(
        b"".join(n.to_bytes(size, "little") for n, size in zip(entry, (2, 2, 4, 4), strict=True)) for entry in fixed
    )
    depths = (16).to_bytes(2, "little") * samples
    return b"II*\0" + (8 + len(depths)).to_bytes(4, "little") + depths + directory + bytes(4) + data


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "YCbCr"])
def test_other_modes_are_converted_as_by_open_clip(mode: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    assert eight_bits(image) is image
    own = image_transform(16, is_train=False, mean=PLAIN.mean, std=PLAIN.std, interpolation="bicubic")(image)
    resized = torch.from_numpy(PLAIN.resizer()(image))
    torch.testing.assert_close(PLAIN.normalise(resized[None], torch.float32)[0], own, rtol=0, atol=0)


def test_values_whose_white_is_unknown_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point, so the value of white is unknown"):
        PLAIN.resizer()(Image.fromarray(GREY.astype(np.float32) / 255))
    for values in (GREY.astype(np.int32) * 10**6, -GREY.astype(np.int32)):
        with pytest.raises(ValueError, match=r"its values reach from -?\d+ to \d+, so the value of white is unknown"):
            PLAIN.resizer()(Image.fromarray(values))


def test_a_tiff_of_12_bits_has_its_own_white() -> None:
    image = reopened(Image.fromarray(GREY.astype(np.uint16) << 4), "TIFF")
    image.load()
    image.tag_v2[258] = (12,)  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(eight_bits(image)), GREY) and not is_dim(image)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientations_are_ignored_unless_the_option_is_set(form: str, value: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    pixels = np.random.default_rng(3).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image = reopened(Image.fromarray(pixels), form, exif=exif)
    assert orientation(image) == value
    stored = Image.fromarray(np.asarray(image))
    assert np.array_equal(PLAIN.resizer()(image), PLAIN.resizer()(stored))
    assert np.array_equal(TURNED.resizer()(image), PLAIN.resizer()(ImageOps.exif_transpose(image)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow doubts the tags
def test_damaged_exif_data_count_as_upright() -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"nonsense"):
        image = reopened(Image.fromarray(GREY), "JPEG", exif=exif)
        assert orientation(image) == 1 and upright(image) is image


def write(root: Path, exif: int) -> Path:
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = exif
    (root / "test" / "a").mkdir(parents=True)
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 20, 3), dtype=np.uint8)
        how = {"exif": data} if i < 2 else {}
        Image.fromarray(pixels).save(root / "test" / "a" / f"{i}.jpg", **how)
    return root


def test_turned_images_are_counted_in_the_cache_too(tmp_path: Path) -> None:
    source = FolderSource(write(tmp_path / "set", 6))
    for _ in range(2):
        lines = list(noted(prepare(source, PLAIN).values(), PLAIN))
        assert len(lines) == 1 and lines[0].startswith("2 of 5 images have an EXIF orientation, which is ignored")
    turned = prepare(source, TURNED)
    assert not list(noted(turned.values(), TURNED))
    assert turned["test"].fingerprint != prepare(source, PLAIN)["test"].fingerprint


def test_the_option_is_in_the_key_only_if_it_is_set_and_never_in_the_backbones_identity() -> None:
    assert PLAIN.resize_key == "16x16-bicubic-shortest-0"
    assert TURNED.resize_key == "16x16-bicubic-shortest-0-exif"
    assert repr(TURNED) == repr(PLAIN) and "exif" not in repr(PLAIN)


def test_files_that_use_12_of_16_bits_are_counted(tmp_path: Path) -> None:
    (tmp_path / "test" / "a").mkdir(parents=True)
    for i, scale in enumerate((1, 16, 257)):
        Image.fromarray(GREY.astype(np.uint16) * scale).save(tmp_path / "test" / "a" / f"{i}.png")
    lines = list(noted(prepare(FolderSource(tmp_path), PLAIN).values(), PLAIN))
    assert len(lines) == 1 and lines[0].startswith("2 of 3 images are greyscale of 16 bits without a value above 4095")


def test_a_strip_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="its sides of 1 and 800000 pixels differ too much"):
        PLAIN.resizer()(Image.new("L", (1, 800_000)))
