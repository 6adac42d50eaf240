"""Mutated images: one of the files in a folder of classes is changed, and the folder is decoded."""

import io
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.formats import in_png
from fuzz.mutations import mutate_bytes
from fuzz.oracle import verdict
from fuzz.sandbox import Check, Limits
from tasks.vision.decoded import prepare
from tasks.vision.folders import FolderSource
from tasks.vision.preprocess import Preprocess

PREPROCESS = Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest")
_NAME = "changed.png"
Image.init()  # its readers are then not imported again in every child


class Pictures:
    """PNG, JPEG, GIF, WebP, TIFF and BMP in every mode that they have; Pillow goes by content, not by name."""

    name, share, batch = "images", 600, 25
    limits = Limits(resident=1024)  # the largest image that is accepted has 178 megapixels

    def prepare(self, folder: Path) -> None:
        """Write one file of each format and mode, and a folder of good images."""
        (folder / "formats").mkdir()
        for number, data in enumerate(_files()):
            (folder / "formats" / f"{number:02}").write_bytes(data)
        write_classes(folder / "classes")

    def open(self, prepared: Path) -> Check:
        """Return the cases: one changed file is among the good ones, and all are decoded."""
        originals = [path.read_bytes() for path in sorted((prepared / "formats").iterdir())]

        def check(seed: int, folder: Path) -> str:
            dice = random.Random(f"images {seed}")
            shutil.copytree(prepared / "classes", folder / "classes")
            data = dice.choice(originals)
            chunks = data.startswith(b"\x89PNG") and dice.random() < 0.6
            changed = in_png(data, dice) if chunks else mutate_bytes(data, dice, 6)
            (folder / "classes" / "cats" / _NAME).write_bytes(changed)
            os.environ["LINES_SWEEP_CACHE"] = str(folder / "cache")
            return verdict(lambda: prepare(FolderSource(folder / "classes"), PREPROCESS), [_NAME])

        return check


def write_classes(folder: Path, count: int = 3) -> None:
    """Write a folder of two classes with `count` small images each."""
    for number, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(10 * number + i).integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def _files() -> Iterator[bytes]:
    across, down = np.meshgrid(np.arange(40), np.arange(30))
    colours = np.stack([across * 6, down * 8, across + down], -1).astype(np.uint8)
    image = Image.fromarray(colours)
    deep = Image.fromarray((across * 1600 + down).astype(np.uint16))
    real = Image.fromarray((across / 40).astype(np.float32))
    for kind, modes in {
        "PNG": ("RGB", "RGBA", "L", "LA", "P", "1"), "JPEG": ("RGB", "L", "CMYK"), "GIF": ("P", "L"),
        "WEBP": ("RGB", "RGBA"), "TIFF": ("RGB", "L", "1", "CMYK", "LAB"), "BMP": ("RGB", "P"),
    }.items():  # fmt: skip
        for mode in modes:
            yield _saved(image if mode == "RGB" else _in_mode(image, mode), kind)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        yield _saved(image, "TIFF", compression=compression)
    yield _saved(image, "JPEG", progressive=True, exif=_turned(image))
    yield _saved(image.convert("P"), "GIF", save_all=True, append_images=[image.convert("P").rotate(90)])
    yield _saved(deep, "PNG")
    yield _saved(deep, "TIFF")
    yield _saved(real, "TIFF")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    return image.convert(mode)


def _turned(image: Image.Image) -> Image.Exif:
    exif = image.getexif()
    exif[0x0112] = 6
    return exif


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
