"""Proves that all bad images of a data set are in one error, and that no broken file ends otherwise."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.vision.decoded import decoder, prepare
from tasks.vision.folders import FolderSource
from tasks.vision.images import BadImages, ImageRecord, Undecodable
from tasks.vision.preprocess import Preprocess

PLAIN = Preprocess((16, 16), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), "bicubic", "shortest")


def pixels(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8))


def write(root: Path, bad: int) -> list[Path]:
    """Write good images, and bad ones of several kinds, in both splits; return the bad ones."""
    paths = []
    for s, split in enumerate(("val", "test")):
        (root / split / "a").mkdir(parents=True)
        for i in range(5):
            pixels(10 * s + i).save(root / split / "a" / f"good{i}.png")
    for i in range(bad):
        paths.append(root / ("val", "test")[i % 2] / "a" / f"bad{i:02d}.jpg")
        pixels(100 + i).save(paths[-1], quality=95)
        paths[-1].write_bytes(paths[-1].read_bytes()[: (0, 100, 600)[i % 3]] + bytes([i] * (i > 0)))
    return paths


def test_all_bad_images_of_all_splits_are_in_one_error(tmp_path: Path) -> None:
    paths = write(tmp_path / "set", 7)
    with pytest.raises(BadImages) as caught:
        prepare(FolderSource(tmp_path / "set"), PLAIN)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path / 'set'}: 7 images cannot be decoded; repair or remove them:"
    assert [line.split(": ")[0].strip() for line in lines[1:]] == sorted(map(str, paths))
    for path in paths:
        path.unlink()
    assert sum(map(len, prepare(FolderSource(tmp_path / "set"), PLAIN).values())) == 10


def test_the_first_twenty_are_named(tmp_path: Path) -> None:
    write(tmp_path / "set", 25)
    with pytest.raises(BadImages, match="25 images cannot be decoded") as caught:
        prepare(FolderSource(tmp_path / "set"), PLAIN)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22 and lines[-1] == "  and 5 more"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_files_that_cannot_be_opened_are_bad_images_too(tmp_path: Path) -> None:
    paths = write(tmp_path / "set", 2)
    for path in paths:
        path.chmod(0)
    with pytest.raises(BadImages, match="2 images cannot be decoded(.|\n)*Permission denied"):
        prepare(FolderSource(tmp_path / "set"), PLAIN)


def test_an_image_that_is_too_large_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    (tmp_path / "test" / "a").mkdir(parents=True)
    Image.new("L", (2000, 1500)).save(tmp_path / "test" / "a" / "scan.png")
    with pytest.raises(BadImages, match=r"scan\.png: .*it has more than 2 megapixels, .* save a smaller copy"):
        prepare(FolderSource(tmp_path), PLAIN)


def test_the_errors_travel_between_processes() -> None:
    error = BadImages("set", [Undecodable("b", "no"), Undecodable("a", "no")])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow doubts the tags of broken files
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_flipped_and_cut_files_are_read_or_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "image"
    pixels(0).save(path, form)
    whole, attempt, rng = path.read_bytes(), decoder(PLAIN), np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, min(len(data), 200), 4):
            data[place] = rng.integers(256)
        decoded = attempt(ImageRecord("image", 0, b"", lambda data=data: bytes(data)))
        assert decoded.pixels.shape == (3, 16, 16) and decoded.pixels.dtype == np.uint8


@pytest.mark.parametrize("values", [np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8, 5), np.uint8), np.zeros(8)])
def test_arrays_that_are_no_images_are_refused(values: np.ndarray) -> None:
    assert decoder(PLAIN)(ImageRecord("image", 0, b"", values)).problem
