"""Formats of pixel arrays: idx (MNIST), batches of CIFAR and STL-10, SVHN's .mat, PatchCamelyon's HDF5, FER2013's csv.

Shape legend: N images, H, W height and width.
"""

import csv
import io
import pickle
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.extras import install_hint
from tasks.vision.published.formats.listing import FilesMissing, Format, Listing
from tasks.vision.published.formats.matlab import read_matlab

_CIFAR10_TRAIN = [f"data_batch_{i}" for i in range(1, 6)]
_STL_SIDE = 96
#: All names in CIFAR's pickles; any other name is refused, so that reading them runs no code.
_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def _read_idx(place: Path, split: str) -> Listing:
    """Read MNIST's format: SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte."""
    images_NHW = _idx(place / f"{split}-images-idx3-ubyte", 3)
    labels_N = _idx(place / f"{split}-labels-idx1-ubyte", 1)
    return _listing(images_NHW, labels_N, place)


def _idx(path: Path, dims: int) -> npt.NDArray[np.uint8]:
    data = path.read_bytes()
    header = 4 + 4 * dims
    if len(data) < header or data[:4] != bytes([0, 0, 8, dims]):
        raise FilesMissing(f"{path}: not an idx file of bytes in {dims} dimensions: is it unpacked?")
    shape = struct.unpack(f">{dims}I", data[4:header])
    if len(data) != header + int(np.prod(shape)):
        raise FilesMissing(
            f"{path}: holds {len(data)} bytes, but its header means {header + int(np.prod(shape))}: is it truncated?"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(f"names {module}.{name}, unlike any batch of CIFAR")
        return _PICKLED[module, name]


def _unpickled(path: Path) -> dict[str, Any]:
    """Read a batch of CIFAR without running code."""
    try:
        batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError) as error:
        raise FilesMissing(f"{path}: not a batch of CIFAR: {error}") from error
    if not isinstance(batch, dict):
        raise FilesMissing(f"{path}: not a batch of CIFAR: holds a {type(batch).__name__}")
    return batch


def _read_cifar(files: Sequence[Path], label: str) -> Listing:
    batches = [_unpickled(path) for path in files]
    if lacking := [path for path, batch in zip(files, batches, strict=True) if not {"data", label} <= set(batch)]:
        raise FilesMissing(f"{lacking[0]}: not a batch of CIFAR: has no data or {label}")
    pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _listing(pixels, np.concatenate([batch[label] for batch in batches]), files[0])


def _read_cifar10(place: Path, split: str) -> Listing:
    names = _CIFAR10_TRAIN if split == "train" else ["test_batch"]
    return _read_cifar([place / name for name in names], "labels")


def _read_stl10(place: Path, split: str) -> Listing:
    """Read planes in MATLAB's order, with height and width swapped; labels count from 1."""
    planes = np.fromfile(place / f"{split}_X.bin", np.uint8).reshape(-1, 3, _STL_SIDE, _STL_SIDE)
    labels_N = np.fromfile(place / f"{split}_y.bin", np.uint8).astype(np.int64) - 1
    return _listing(planes.transpose(0, 3, 2, 1), labels_N, place)


def _read_svhn(place: Path, split: str) -> Listing:
    """Read cropped digits; the digit 0 has the label 10."""
    matrix = read_matlab(place / f"{split}_32x32.mat")
    return _listing(matrix["X"].transpose(3, 0, 1, 2), matrix["y"].astype(np.int64).reshape(-1) % 10, place)


@dataclass(frozen=True, slots=True)
class _Hdf5Row:
    """One image of an HDF5 file, read when it is decoded, since the set has 7 GB."""

    path: Path
    row: int

    def __call__(self) -> npt.NDArray[np.uint8]:
        with _hdf5(self.path) as file:
            return np.asarray(file["x"][self.row], dtype=np.uint8)


def _hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{path}: needs h5py: {install_hint('data')}, or use from: huggingface") from error
    return h5py.File(path)


def _read_pcam(place: Path, split: str) -> Listing:
    path = place / f"camelyonpatch_level_2_split_{split}_x.h5"
    with _hdf5(place / f"camelyonpatch_level_2_split_{split}_y.h5") as file:
        labels = np.asarray(file["y"]).reshape(-1).tolist()
    return Listing([_Hdf5Row(path, row) for row in range(len(labels))], labels)


def _read_fer2013(place: Path, usage: str) -> Listing:
    """Read the challenge's files: emotion, usage and 48 x 48 grey values as text; `usage` may be several words."""
    path = next((p for n in ("fer2013.csv", "icml_face_data.csv") if (p := place / n).is_file()), place / "fer2013.csv")
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        rows = [(row["pixels"], int(row["emotion"])) for row in reader if row["Usage"] in usage.split()]
    images = [np.fromstring(pixels, dtype=np.uint8, sep=" ").reshape(48, 48) for pixels, _ in rows]
    return Listing(images, [label for _, label in rows])


def _listing(images: npt.NDArray[np.uint8], labels_N: npt.NDArray[Any], where: Path) -> Listing:
    if len(images) != len(labels_N):
        raise FilesMissing(f"{where}: holds {len(images)} images, but {len(labels_N)} labels")
    return Listing(list(images), labels_N.tolist())


FORMATS = {
    "idx": Format(_read_idx),
    "cifar10": Format(_read_cifar10, lambda place, split: _unpickled(place / "batches.meta")["label_names"]),
    "cifar100": Format(
        lambda place, split: _read_cifar([place / split], "fine_labels"),
        lambda place, split: _unpickled(place / "meta")["fine_label_names"],
    ),
    "stl10": Format(_read_stl10, lambda place, split: (place / "class_names.txt").read_text().split()),
    "svhn": Format(_read_svhn),
    "pcam": Format(_read_pcam),
    "fer2013": Format(_read_fer2013),
}
