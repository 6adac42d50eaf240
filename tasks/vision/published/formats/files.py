"""Formats with one file an image: class folders, and lists of files with labels in text, JSON, csv or .mat."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.vision.file_tree import FileTree
from tasks.vision.published.formats.listing import FilesMissing, Format, Listing
from tasks.vision.published.formats.matlab import read_matlab

#: As torchvision's ImageFolder, whose order of files the authors' splits depend on.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def class_folders(place: Path, split: str) -> list[str]:
    """Return the sorted names of the class folders in PLACE/SPLIT.

    Raises:
        FilesMissing: if there is none.
        ValueError: if links lead nowhere.
    """
    tree = FileTree(place / split)
    found = [folder.name for folder in tree.folders(place / split)]
    tree.check()
    if not found:
        raise FilesMissing(f"{place / split}: holds no class folders")
    return found


def _read_folders(place: Path, split: str) -> Listing:
    """Read PLACE/SPLIT/CLASS/* in the order of torchvision's ImageFolder: by class, folder and file name."""
    images, labels = [], []
    tree = FileTree(place / split)
    for label, name in enumerate(class_folders(place, split)):
        files = _images(tree, place / split / name)
        images += files
        labels += [label] * len(files)
    tree.check()
    return Listing(images, labels)


def _images(tree: FileTree, folder: Path) -> list[Path]:
    return [path for path in tree.files(folder) if path.name.lower().endswith(_SUFFIXES)]


def _read_dtd(place: Path, lists: str) -> Listing:
    """Read the lists labels/NAME.txt of DTD's authors, joined and in the order of an ImageFolder."""
    entries = sorted(tuple(line.split("/")) for name in lists.split() for line in _lines(place / f"labels/{name}.txt"))
    labels = {name: i for i, name in enumerate(class_folders(place, "images"))}
    return Listing([place.joinpath("images", *entry) for entry in entries], [labels[entry[0]] for entry in entries])


def _read_resisc45(place: Path, split: str) -> Listing:
    """Read the files NWPU-RESISC45/CLASS/*.jpg that resisc45-SPLIT.txt lists."""
    wanted = set(_lines(place / f"resisc45-{split}.txt"))
    everything = _read_folders(place, "NWPU-RESISC45")
    kept = [i for i, path in enumerate(everything.images) if isinstance(path, Path) and path.name in wanted]
    return Listing([everything.images[i] for i in kept], [everything.labels[i] for i in kept])


def _read_gtsrb(place: Path, split: str) -> Listing:
    if split == "train":
        found, names = _read_folders(place, "GTSRB/Training"), class_folders(place, "GTSRB/Training")
        return Listing(found.images, [int(names[label]) for label in found.labels])  # folders are called 00000 to 00042
    with (place / "GT-final_test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";", skipinitialspace=True))
    folder = place / "GTSRB/Final_Test/Images"
    return Listing([folder / row["Filename"] for row in rows], [int(row["ClassId"]) for row in rows])


def _read_cars(place: Path, split: str) -> Listing:
    file = "devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
    notes = _matrix(place / file, "annotations")
    images = [place / f"cars_{split}" / str(note["fname"]) for note in notes]
    return Listing(images, [int(note["class"]) - 1 for note in notes])


def _read_pets(place: Path, split: str) -> Listing:
    rows = [line.split() for line in _lines(place / f"annotations/{split}.txt")]
    return Listing([place / f"images/{row[0]}.jpg" for row in rows], [int(row[1]) - 1 for row in rows])


def _read_flowers(place: Path, split: str) -> Listing:
    numbers = _matrix(place / "setid.mat", split).tolist()
    labels = _matrix(place / "imagelabels.mat", "labels")
    return Listing([place / f"jpg/image_{n:05d}.jpg" for n in numbers], [int(labels[n - 1]) - 1 for n in numbers])


def _read_food101(place: Path, split: str) -> Listing:
    """Read in the order of meta/SPLIT.json: class by class, in the file's order."""
    listed: dict[str, list[str]] = json.loads((place / f"meta/{split}.json").read_text())
    labels = {name: i for i, name in enumerate(_food101_names(place, split))}
    images = [place / f"images/{name}.jpg" for names in listed.values() for name in names]
    return Listing(images, [labels[c] for c, names in listed.items() for _ in names])


def _food101_names(place: Path, split: str) -> Sequence[str]:
    return sorted(json.loads((place / f"meta/{split}.json").read_text()))


def _matrix(path: Path, name: str) -> npt.NDArray[Any]:
    return np.atleast_1d(read_matlab(path, squeeze=True)[name])


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


FORMATS = {
    "folders": Format(_read_folders, class_folders),
    "dtd": Format(_read_dtd, lambda place, split: class_folders(place, "images")),
    "resisc45": Format(_read_resisc45, lambda place, split: class_folders(place, "NWPU-RESISC45")),
    "gtsrb": Format(_read_gtsrb),
    "cars": Format(
        _read_cars,
        lambda place, split: _matrix(place / "devkit/cars_meta.mat", "class_names").astype(str).tolist(),
    ),
    "pets": Format(_read_pets),
    "flowers": Format(_read_flowers),
    "food101": Format(_read_food101, _food101_names),
}
