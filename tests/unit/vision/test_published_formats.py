"""Proves that each format reads the images, labels and order of torchvision's class, and runs no code."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision.datasets as oracle
from published_mirrors import parquet, rgb, webdataset
from published_sets import Splits, fer2013, writers

from tasks.vision.published.catalogue import vision_set
from tasks.vision.published.files import VisionOptions, find_files
from tasks.vision.published.formats.listing import Listing
from tasks.vision.published.formats.names import label_order
from tasks.vision.published.sets import VisionSource

WRITERS = writers()
FLAGS: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}


def split(train: str = "train") -> dict[str, dict[str, Any]]:
    return {"train": {"split": train}, "test": {"split": "test"}}


#: torchvision's class, the folder below the root, and its arguments for our splits.
ORACLES: dict[str, tuple[Callable[..., Any], str, dict[str, dict[str, Any]]]] = {
    "MNIST": (oracle.MNIST, "", FLAGS),
    "FashionMNIST": (oracle.FashionMNIST, "", FLAGS),
    "KMNIST": (oracle.KMNIST, "", FLAGS),
    "EMNIST": (oracle.EMNIST, "", {s: {**flags, "split": "digits"} for s, flags in FLAGS.items()}),
    "CIFAR10": (oracle.CIFAR10, "", FLAGS),
    "CIFAR100": (oracle.CIFAR100, "", FLAGS),
    "STL10": (oracle.STL10, "", split()),
    "SVHN": (oracle.SVHN, "svhn", split()),
    "PCAM": (oracle.PCAM, "", split()),
    "FER2013": (oracle.FER2013, "", split()),
    "Cars": (oracle.StanfordCars, "", split()),
    "GTSRB": (oracle.GTSRB, "", split()),
    "OxfordIIITPet": (oracle.OxfordIIITPet, "", split("trainval")),
    "Flowers102": (oracle.Flowers102, "", split()),
    "Food101": (oracle.Food101, "", split()),
    "RenderedSST2": (oracle.RenderedSST2, "", split()),
    "SUN397": (oracle.ImageFolder, "sun397/{}", {"train": {}, "test": {}}),
    "EuroSAT": (oracle.ImageFolder, "EuroSAT_splits/{}", {"train": {}, "test": {}}),
}


def read(root: Path, name: str, options: VisionOptions) -> dict[str, Listing]:
    layout, format_, place = find_files(vision_set(name), options)
    return {s: format_.read(place, own) for s, own in layout.splits.items()}


def same(listing: Listing, expected: Sequence[tuple[Any, int]]) -> None:
    assert [label for _, label in expected] == list(listing.labels)
    for picture, (pixels, _) in zip(listing.images, expected, strict=True):
        assert np.array_equal(rgb(picture), rgb(pixels))


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    written = WRITERS[name](tmp_path)
    found = read(tmp_path, name, VisionOptions(tmp_path))
    assert set(found) == set(written)
    for part, expected in written.items():
        same(found[part], expected)


@pytest.mark.parametrize("name", ORACLES)
def test_the_order_is_that_of_torchvisions_own_class(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path)
    make, folder, arguments = ORACLES[name]
    for module in (oracle.cifar, oracle.stl10, oracle.svhn, oracle.flowers102, oracle.fer2013):
        monkeypatch.setattr(module, "check_integrity", lambda *given, **named: True)
    for module in (oracle.CIFAR10, oracle.CIFAR100):  # of other bytes than the published file's
        monkeypatch.setattr(module, "meta", {**module.meta, "md5": None})
    found = read(tmp_path, name, VisionOptions(tmp_path))
    for part, flags in arguments.items():
        place = folder.format({"SUN397": {"test": "val"}}.get(name, {}).get(part, part))
        theirs = make(str(tmp_path / place), **flags)
        same(found[part], [theirs[i] for i in range(len(theirs))])


@pytest.mark.parametrize("write", [parquet, webdataset])
def test_mirrors_give_the_same_labels_whatever_their_order(
    tmp_path: Path, write: Callable[[Path, Sequence[str], Sequence[int]], Splits]
) -> None:
    names = [
        "T - shirt / top",
        "Trouser",
        "pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
    order = [3, 1, 0, 2, 9, 8, 7, 6, 5, 4]
    written = write(tmp_path, names, order)
    origin = "huggingface" if write is parquet else "webdataset"
    source = VisionSource(vision_set("FashionMNIST"), VisionOptions(tmp_path, origin, check_counts=False))
    records = {r.name: r for r in source.records()["test"]}
    assert len(records) == len(written["test"])
    for i, (pixels, label) in enumerate(written["test"]):
        record = records[f"vision/FashionMNIST:test[{i}]"]
        assert record.label == label and np.array_equal(rgb(record.image), pixels)


def test_hundred_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Sorted as text, 10.tar would come before 2.tar, and the split by index would differ."""
    written = webdataset(tmp_path, [str(i) for i in range(10)], range(10))
    listing = read(tmp_path, "MNIST", VisionOptions(tmp_path, "webdataset"))["train"]
    assert (tmp_path / "train/10.tar").exists()
    same(listing, written["train"])


def test_a_plain_number_column_needs_no_names(tmp_path: Path) -> None:
    written = parquet(tmp_path, [""] * 10, range(10))
    same(read(tmp_path, "MNIST", VisionOptions(tmp_path, "huggingface"))["train"], written["train"])


def test_icml_face_data_is_fer2013_too(tmp_path: Path) -> None:
    written = fer2013(tmp_path / "fer2013", "icml_face_data.csv", "emotion, Usage, pixels")
    same(read(tmp_path, "FER2013", VisionOptions(tmp_path))["test"], written["test"])


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_batch_of_cifar_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    WRITERS["CIFAR10"](tmp_path)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(ValueError, match=r"test_batch: not a batch of CIFAR: names .*, unlike any batch of CIFAR"):
        read(tmp_path, "CIFAR10", VisionOptions(tmp_path))
    assert not Path("ran").exists()


def test_python_2_pickles_of_cifar_are_read(tmp_path: Path) -> None:
    """Write a batch like the published files: protocol 2, arrays as byte strings of Python 2."""
    header = b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00"
    header += b"\x85U\x01b\x87Rq\x05(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03"
    header += b"U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x18\x00\x00"
    pixels = bytes(range(256)) * 24
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    (place / "test_batch").write_bytes(header + pixels + b"tbU\x06labels]q\x08(K\x03K\x05eu.")
    listing = find_files(vision_set("CIFAR10"), VisionOptions(tmp_path))[1].read(place, "test")
    assert list(listing.labels) == [3, 5]
    assert listing.images[1][0, 1].tolist() == [1, 1, 1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("MNIST", "MNIST/raw/t10k-images-idx3-ubyte", lambda b: b[:-5], "its header means"),
        ("MNIST", "MNIST/raw/t10k-images-idx3-ubyte", lambda b: b"\x1f\x8b" + b, "is it unpacked"),
        ("CIFAR10", "cifar-10-batches-py/test_batch", lambda b: b[:90], "not a batch of CIFAR"),
        ("SVHN", "svhn/test_32x32.mat", lambda b: b[:40], "cannot be read as svhn"),
        ("Food101", "food-101/meta/test.json", lambda b: b[:40], "cannot be read as food101"),
    ],
)
def test_cut_files_are_named(
    tmp_path: Path, name: str, file: str, change: Callable[[bytes], bytes], message: str
) -> None:
    WRITERS[name](tmp_path)
    (tmp_path / file).write_bytes(change((tmp_path / file).read_bytes()))
    with pytest.raises(ValueError, match=message) as raised:
        VisionSource(vision_set(name), VisionOptions(tmp_path, check_counts=False)).records()
    assert str(tmp_path) in str(raised.value)


def test_a_lacking_file_is_told_with_how_to_get_it(tmp_path: Path) -> None:
    WRITERS["Cars"](tmp_path)
    (tmp_path / "stanford_cars/cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(ValueError, match=r"cannot be read as cars .*; to get it: the authors' host is gone"):
        VisionSource(vision_set("Cars"), VisionOptions(tmp_path, check_counts=False)).records()


def test_shards_without_a_label_and_scripts_are_refused(tmp_path: Path) -> None:
    webdataset(tmp_path / "w", ["negative", "positive"], [0, 1])
    shard = tmp_path / "w/test/0.tar"
    shard.write_bytes(shard.read_bytes().replace(b"s0000003.cls", b"s0000003.txt"))
    with pytest.raises(ValueError, match=r"0\.tar: .*"):
        read(tmp_path, "RenderedSST2", VisionOptions(tmp_path / "w", "webdataset"))
    (tmp_path / "script").mkdir()
    (tmp_path / "script/fer2013.py").write_text("raise SystemExit")
    with pytest.raises(ValueError, match="holds a script, which is not run"):
        read(tmp_path, "MNIST", VisionOptions(tmp_path / "script", "huggingface"))


def test_parquet_of_other_columns_is_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        pq.write_table(pa.table({"img_bytes": [b"x"], "labels": [0]}), tmp_path / f"{part}-0.parquet")
    with pytest.raises(ValueError, match="must have the columns image"):
        read(tmp_path, "MNIST", VisionOptions(tmp_path, "huggingface"))


def test_names_in_another_wording_are_refused() -> None:
    assert label_order(["B b", "a"], ["A", "b-B"], (), "x") == [1, 0]
    assert label_order(["crane", "crane"], ["crane", "Crane"], (), "x") == [0, 1]
    with pytest.raises(ValueError, match=r"x: the classes \['c'\] are none of .* set the option classes_by: order"):
        label_order(["a", "c"], ["a", "b"], (), "x")
    with pytest.raises(ValueError, match="several of its classes have the same name"):
        label_order(["a", "A"], ["a", "b"], (), "x")
