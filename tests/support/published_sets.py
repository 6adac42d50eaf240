"""Tiny copies of the published sets in the layouts of their files; each writer returns what readers must read."""

import csv
import json
import pickle
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

from tasks.vision.published.catalogue import set_names, vision_set

Pixels = npt.NDArray[np.uint8]
#: Pixels and label of each image, in the order in which the files give them.
Rows = list[tuple[Pixels, int]]
Splits = dict[str, Rows]


def rows(count: int, classes: int, shape: tuple[int, ...], seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 256, shape, dtype=np.uint8), i * 7 % classes) for i in range(count)]


def both(classes: int, shape: tuple[int, ...], train: int = 30, test: int = 8) -> Splits:
    return {"train": rows(train, classes, shape, 0), "test": rows(test, classes, shape, 1)}


def png(path: Path, pixels: Pixels) -> None:
    """Write a lossless image whatever the suffix: readers look at the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "ppm" if path.suffix == ".ppm" else "png")


def by_class(found: Rows) -> Rows:
    return sorted(found, key=lambda row: row[1])


def folders(place: Path, names: Sequence[str], parts: dict[str, str]) -> Splits:
    """Write PLACE/PART/CLASS/N.png, ordered by class."""
    data = both(len(names), (9, 11, 3))
    for split, part in parts.items():
        for i, (pixels, label) in enumerate(data[split]):
            png(place / part / names[label] / f"{i:03d}.png", pixels)
    return {split: by_class(data[split]) for split in parts}


def idx(place: Path, train: str, test: str) -> Splits:
    data = both(10, (28, 28))
    place.mkdir(parents=True)
    for split, prefix in (("train", train), ("test", test)):
        images, labels = np.stack([p for p, _ in data[split]]), bytes(label for _, label in data[split])
        header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
        (place / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels))
        (place / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels)
    return data


def batch(path: Path, data: Rows, label: str) -> None:
    """Write CIFAR like its authors, except for the pickle protocol: theirs was of Python 2."""
    planes = np.stack([p.transpose(2, 0, 1).reshape(-1) for p, _ in data])
    path.parent.mkdir(parents=True, exist_ok=True)
    written = pickle.dumps({"data": planes, label: [n for _, n in data]}, protocol=3)
    path.write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def cifar10(place: Path, names: Sequence[str]) -> Splits:
    data = both(10, (32, 32, 3))
    for i in range(5):
        batch(place / f"data_batch_{i + 1}", data["train"][6 * i : 6 * i + 6], "labels")
    batch(place / "test_batch", data["test"], "labels")
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": list(names)}, protocol=3))
    return data


def cifar100(place: Path, names: Sequence[str]) -> Splits:
    data = both(100, (32, 32, 3))
    for split, found in data.items():
        batch(place / split, found, "fine_labels")
    (place / "meta").write_bytes(pickle.dumps({"fine_label_names": list(names)}, protocol=3))
    return data


def stl10(place: Path, names: Sequence[str]) -> Splits:
    data = both(10, (96, 96, 3))
    place.mkdir(parents=True)
    for split, found in data.items():
        (place / f"{split}_X.bin").write_bytes(np.stack([p.transpose(2, 1, 0) for p, _ in found]).tobytes())
        (place / f"{split}_y.bin").write_bytes(bytes(label + 1 for _, label in found))
    (place / "class_names.txt").write_text("\n".join(names) + "\n")
    return data


def svhn(place: Path) -> Splits:
    data = both(10, (32, 32, 3))
    place.mkdir(parents=True)
    for split, found in data.items():
        labels = np.array([[label or 10] for _, label in found], np.uint8)
        savemat(place / f"{split}_32x32.mat", {"X": np.stack([p for p, _ in found], axis=-1), "y": labels})
    return data


def pcam(place: Path) -> Splits:
    data = both(2, (12, 12, 3))
    place.mkdir(parents=True)
    for split, found in data.items():
        with h5py.File(place / f"camelyonpatch_level_2_split_{split}_x.h5", "w") as file:
            file.create_dataset("x", data=np.stack([p for p, _ in found]), compression="gzip")
        with h5py.File(place / f"camelyonpatch_level_2_split_{split}_y.h5", "w") as file:
            file["y"] = np.array([label for _, label in found], np.uint8).reshape(-1, 1, 1, 1)
    return data


def fer2013(place: Path, file: str = "fer2013.csv", header: str = "emotion,pixels,Usage") -> Splits:
    data = both(7, (48, 48))
    place.mkdir(parents=True)
    uses = ["Training"] * 30 + ["PublicTest"] * 4 + ["PrivateTest"] * 4
    with (place / file).open("w", newline="") as sink:
        sink.write(header + "\n")
        writer = csv.writer(sink)
        for (pixels, label), use in zip(data["train"] + data["test"], uses, strict=True):
            text = " ".join(map(str, pixels.reshape(-1).tolist()))
            writer.writerow([label, text, use] if file == "fer2013.csv" else [label, use, text])
    return data


def cars(place: Path, names: Sequence[str]) -> Splits:
    data = both(len(names), (10, 14, 3))
    (place / "devkit").mkdir(parents=True)
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        notes = np.empty((1, len(data[split])), dtype=[("class", object), ("fname", object)])
        for i, (pixels, label) in enumerate(data[split]):
            notes[0, i] = (np.uint8(label + 1), f"{i + 1:05d}.jpg")
            png(place / f"cars_{split}" / f"{i + 1:05d}.jpg", pixels)
        savemat(place / file, {"annotations": notes})
    savemat(place / "devkit/cars_meta.mat", {"class_names": np.array([list(names)], dtype=object)})
    return data


def gtsrb(place: Path) -> Splits:
    data = both(4, (12, 10, 3))
    for i, (pixels, label) in enumerate(data["train"]):
        png(place / f"GTSRB/Training/{label:05d}/{i:05d}.ppm", pixels)
    lines = ["Filename;Width;Height;ClassId"]
    for i, (pixels, label) in enumerate(data["test"]):
        png(place / f"GTSRB/Final_Test/Images/{i:05d}.ppm", pixels)
        lines.append(f"{i:05d}.ppm;10;12;{label}")
    (place / "GT-final_test.csv").write_text("\n".join(lines) + "\n")
    return {"train": by_class(data["train"]), "test": data["test"]}


def pets(place: Path, names: Sequence[str]) -> Splits:
    data = both(len(names), (10, 14, 3), 40, 37)
    (place / "annotations").mkdir(parents=True)
    for split, file in (("train", "trainval"), ("test", "test")):
        lines = []
        for i, (pixels, label) in enumerate(data[split]):
            image = f"{names[label].lower().replace(' ', '_')}_{len(data[split]) + i}"
            png(place / f"images/{image}.jpg", pixels)
            lines.append(f"{image} {label + 1} 1 1")
        (place / f"annotations/{file}.txt").write_text("\n".join(lines) + "\n")
    return data


def flowers(place: Path) -> Splits:
    data = both(102, (10, 14, 3))
    everything, numbers = data["train"] + data["test"], np.random.default_rng(3).permutation(38) + 1
    labels = np.zeros((1, 38), np.uint8)
    for (pixels, label), number in zip(everything, numbers, strict=True):
        png(place / f"jpg/image_{number:05d}.jpg", pixels)
        labels[0, number - 1] = label + 1
    savemat(place / "imagelabels.mat", {"labels": labels})
    savemat(place / "setid.mat", {"trnid": numbers[None, :30], "valid": numbers[None, :2], "tstid": numbers[None, 30:]})
    return data


def food101(place: Path, names: Sequence[str]) -> Splits:
    data, found = both(len(names), (10, 14, 3)), {}
    (place / "meta").mkdir(parents=True)
    for split, part in data.items():
        listed: dict[str, list[str]] = {name: [] for name in reversed(names)}
        for i, (pixels, label) in enumerate(part):
            listed[names[label]].append(f"{names[label]}/{split}{i}")
            png(place / f"images/{names[label]}/{split}{i}.jpg", pixels)
        (place / f"meta/{split}.json").write_text(json.dumps(listed))
        found[split] = sorted(part, key=lambda row: -row[1])
    return found


def dtd(place: Path, names: Sequence[str]) -> Splits:
    data = both(len(names), (10, 14, 3))
    (place / "labels").mkdir(parents=True)
    lists: dict[str, list[str]] = {"train1": [], "val1": [], "test1": []}
    for split, part in data.items():
        for i, (pixels, label) in enumerate(part):
            name = f"{names[label]}/{names[label]}_{split}{i:04d}.jpg"
            png(place / "images" / name, pixels)
            lists["test1" if split == "test" else ["train1", "val1"][i % 2]].append(name)
    for file, lines in lists.items():
        (place / f"labels/{file}.txt").write_text("\n".join(lines) + "\n")
    return {split: by_class(part) for split, part in data.items()}


def resisc45(place: Path, names: Sequence[str]) -> Splits:
    data = both(len(names), (10, 14, 3), 50, 45)
    for split, part in data.items():
        listed = []
        for i, (pixels, label) in enumerate(part):
            listed.append(f"{names[label]}_{split}{i:03d}.jpg")
            png(place / "NWPU-RESISC45" / names[label] / listed[-1], pixels)
        (place / f"resisc45-{split}.txt").write_text("\n".join(listed) + "\n")
    return {split: by_class(part) for split, part in data.items()}


def objectnet(place: Path) -> Splits:
    """Write three classes, of which ImageNet has two: one as one class, one as two classes."""
    (place / "mappings").mkdir(parents=True)
    values: dict[str, Any] = {
        "folder_to_objectnet_label.json": {"air_freshener": "Air freshener", "chair": "Chair", "t_shirt": "T-shirt"},
        "objectnet_to_imagenet_1k.json": {"T-shirt": "jersey, T-shirt", "Chair": "rocking chair; folding chair, seat"},
        "pytorch_to_imagenet_2012_id.json": {"610": 1, "765": 0, "559": 2},
    }
    for name, value in values.items():
        (place / "mappings" / name).write_text(json.dumps(value))
    (place / "mappings/imagenet_to_label_2012_v2").write_text("rocking chair\njersey, T-shirt\nfolding chair, seat\n")
    found = rows(9, 3, (20, 24, 3), 5)
    for i, (pixels, label) in enumerate(found):
        png(place / "images" / ("air_freshener", "chair", "t_shirt")[label] / f"{i}.png", pixels)
    return {"test": [(pixels[2:-2, 2:-2], label - 1) for pixels, label in by_class(found) if label]}


EUROSAT = ("AnnualCrop", "Forest", "SeaLake")
WORDNET = ("n01443537", "n01484850", "n01494475")
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
OWN = {
    "DTD": ("banded", "lace_like", "polka-dotted"),
    "SUN397": ("a_abbey", "b_bar", "c_church_indoor"),
    "Cars": ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"),
    "Food101": ("apple_pie", "baklava", "waffles"),
}


def writers() -> dict[str, Callable[[Path], Splits]]:
    """Return set -> a function that writes it below a root, for all of the catalogue."""
    lists = {name: vision_set(name).class_names() for name in set_names()}
    train_test, train_val = {"train": "train", "test": "test"}, {"train": "train", "test": "val"}

    def three(root: Path) -> Splits:
        found = folders(root / "EuroSAT_splits", EUROSAT, train_test)
        return found | {"val": folders(root / "EuroSAT_splits", EUROSAT, {"test": "val"})["test"]}

    return {
        "EuroSAT": three,
        "DTD": lambda root: dtd(root / "dtd/dtd", OWN["DTD"]),
        "SUN397": lambda root: folders(root / "sun397", OWN["SUN397"], train_val),
        "MNIST": lambda root: idx(root / "MNIST/raw", "train", "t10k"),
        "RESISC45": lambda root: resisc45(root / "resisc45", lists["RESISC45"][1]),
        "GTSRB": lambda root: gtsrb(root / "gtsrb"),
        "Cars": lambda root: cars(root / "stanford_cars", OWN["Cars"]),
        "SVHN": lambda root: svhn(root / "svhn"),
        "STL10": lambda root: stl10(root / "stl10_binary", STL10),
        "OxfordIIITPet": lambda root: pets(root / "oxford-iiit-pet", lists["OxfordIIITPet"][0]),
        "Flowers102": lambda root: flowers(root / "flowers-102"),
        "CIFAR100": lambda root: cifar100(root / "cifar-100-python", lists["CIFAR100"][0]),
        "PCAM": lambda root: pcam(root / "pcam"),
        "FER2013": lambda root: fer2013(root / "fer2013"),
        "CIFAR10": lambda root: cifar10(root / "cifar-10-batches-py", CIFAR10),
        "Food101": lambda root: food101(root / "food-101", OWN["Food101"]),
        "FashionMNIST": lambda root: idx(root / "FashionMNIST/raw", "train", "t10k"),
        "RenderedSST2": lambda root: folders(root / "rendered-sst2", ("negative", "positive"), train_test),
        "EMNIST": lambda root: idx(root / "EMNIST/raw", "emnist-digits-train", "emnist-digits-test"),
        "KMNIST": lambda root: idx(root / "KMNIST/raw", "train", "t10k"),
        "ImageNet": lambda root: folders(root / "imagenet", WORDNET, train_val),
        "ImageNetV2": lambda root: folders(
            root / "imagenetv2-matched-frequency-format-val", ("0", "1", "10"), {"test": "."}
        ),
        "ImageNetSketch": lambda root: folders(root / "sketch", WORDNET, {"test": "."}),
        "ImageNetR": lambda root: folders(root / "imagenet-r", WORDNET, {"test": "."}),
        "ImageNetA": lambda root: folders(root / "imagenet-a", ("n01498041", "n01531178"), {"test": "."}),
        "ObjectNet": lambda root: objectnet(root / "objectnet-1.0"),
    }
