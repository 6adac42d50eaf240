"""Proves that published sets have the authors' splits, prompts and counts, and that shifted sets have their classes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import IMAGENET_CLASSNAMES
from published_mirrors import parquet, rgb, webdataset
from published_sets import CIFAR10, OWN, WORDNET, folders, pets, writers
from torch.utils.data import random_split

from tasks.base import TaskRequest
from tasks.files.cache import cache_root
from tasks.loading import load_task
from tasks.vision.classification import ZeroShotClassification
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import OpenClipBackbone, build
from tasks.vision.decoded import prepare
from tasks.vision.images import GroupedSource, TrainingSource
from tasks.vision.published.catalogue import set_names, vision_set
from tasks.vision.published.formats.splits import cut_validation
from tasks.vision.published.sets import VisionSource
from tasks.vision.sources import image_source

WRITERS = writers()
LOOSE = {"check_counts": False}


def source(root: Path, name: str, **options: object) -> VisionSource:
    found = image_source(TaskRequest("t", f"vision/{name}", {}, {"root": str(root), **LOOSE, **options}))
    assert isinstance(found, VisionSource)
    return found


@pytest.fixture(scope="module")
def backbone() -> OpenClipBackbone:
    torch.manual_seed(0)
    state = create("embedded/tiny-vit", {}).model.state_dict()
    return build("embedded/tiny-vit", state, torch.device("cpu"), torch.float32)


def test_the_catalogue_holds_the_papers_sets_in_its_order() -> None:
    names = set_names()
    assert names[:8] == ["EuroSAT", "DTD", "SUN397", "MNIST", "RESISC45", "GTSRB", "Cars", "SVHN"]
    assert names[8:14] == ["STL10", "OxfordIIITPet", "Flowers102", "CIFAR100", "PCAM", "FER2013"]
    assert names[14:20] == ["CIFAR10", "Food101", "FashionMNIST", "RenderedSST2", "EMNIST", "KMNIST"]
    assert names[20:] == ["ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetR", "ImageNetA", "ObjectNet"]


def test_templates_and_classes_are_as_many_as_the_authors_have() -> None:
    templates = [3, 8, 2, 1, 18, 3, 8, 1, 2, 1, 1, 18, 1, 6, 18, 1, 2, 1, 1, 1] + [80] * 6
    classes = [10, 47, 397, 10, 45, 43, 196, 10, 10, 37, 102, 100, 2, 7, 10, 101, 10, 2, 10, 10]
    classes += [1000, 1000, 1000, 200, 200, 113]
    entries = [vision_set(name) for name in set_names()]
    assert [len(e.templates) for e in entries] == templates
    assert all(t.count("{}") == 1 for e in entries for t in e.templates)
    assert [e.counts["classes"] for e in entries] == classes
    for names, keys in (e.class_names() for e in entries):
        assert not keys or len(keys) == len(names)


def test_validation_sizes_are_the_published_ones() -> None:
    val = dict(DTD=376, SUN397=1985, MNIST=5000, RESISC45=1890, GTSRB=2664, Cars=814, SVHN=5000, STL10=500)
    val |= dict(OxfordIIITPet=368, Flowers102=102, CIFAR100=5000, PCAM=5000, FER2013=2870, CIFAR10=5000)
    val |= dict(Food101=5000, FashionMNIST=5000, RenderedSST2=692, EMNIST=5000, KMNIST=5000)
    assert {name: len(cut_validation(vision_set(name).counts["train"])[1]) for name in val} == val


@pytest.mark.parametrize("count", [10, 30, 8144, 60000])
def test_the_cut_is_torchs_random_split_with_seed_0(count: int) -> None:
    size = min(int(count * 0.1), 5000)
    generator = torch.Generator().manual_seed(0)
    expected = random_split(range(count), [count - size, size], generator)  # type: ignore[arg-type, var-annotated]
    train, val = cut_validation(count)
    assert train.tolist() == list(expected[0].indices) and val.tolist() == list(expected[1].indices)


def test_the_authors_own_check_of_mnist_holds() -> None:
    assert cut_validation(60_000)[0][0] == 36_044


@pytest.mark.parametrize("name", set_names()[:20])
def test_train_val_and_test_are_whole_and_apart(tmp_path: Path, name: str) -> None:
    written = WRITERS[name](tmp_path)
    found = source(tmp_path, name)
    assert isinstance(found, TrainingSource)
    records, train = found.records(), found.train_records()
    count = len(written["train"])
    assert len(records["test"]) == len(written["test"])
    if "val" in written:  # EuroSAT has its own
        assert (len(train), len(records["val"])) == (count, len(written["val"]))
    else:
        for part, cut in zip((train, records["val"]), cut_validation(count), strict=True):
            expected = [written["train"][i][0] for i in cut]
            assert all(np.array_equal(rgb(r.image), rgb(p)) for r, p in zip(part, expected, strict=True))
    assert len({r.digest for r in [*train, *records["val"], *records["test"]]}) >= count
    assert pickle.loads(pickle.dumps(records["val"][0])).name == records["val"][0].name


NAMES: list[tuple[str, dict[int, str]]] = [
    ("EuroSAT", {0: "annual crop land", 1: "forest", 9: "lake or sea"}),
    ("DTD", {0: "banded", 1: "lace like", 2: "polka-dotted"}),
    ("SUN397", {0: "abbey", 1: "bar", 2: "church indoor"}),
    ("MNIST", {0: "0", 9: "9"}),
    ("RESISC45", {2: "baseball diamond"}),
    ("GTSRB", {14: "stop", 17: "red circle with white horizonal stripe no entry"}),
    ("Cars", {2: "Ram C/V Cargo Van Minivan 2012"}),
    ("OxfordIIITPet", {1: "American Bulldog"}),
    ("Flowers102", {11: "colt's foot", 94: "bougainvillea"}),
    ("CIFAR100", {1: "aquarium_fish"}),
    ("PCAM", {1: "lymph node containing metastatic tumor tissue"}),
    ("FER2013", {0: "['angry']", 3: "['happy', 'smiling']"}),
    ("Food101", {0: "apple_pie"}),
    ("FashionMNIST", {0: "T-shirt/top"}),
    ("RenderedSST2", {0: "negative", 1: "positive"}),
    ("EMNIST", {7: "7"}),
    ("KMNIST", {0: "o", 9: "wo"}),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_class_names_are_as_the_authors_say_them(tmp_path: Path, name: str, expected: dict[int, str]) -> None:
    WRITERS[name](tmp_path)
    names = source(tmp_path, name).class_names
    assert {i: names[i] for i in expected} == expected


def test_prompts_of_fer2013_hold_pythons_brackets(tmp_path: Path) -> None:
    WRITERS["FER2013"](tmp_path)
    found = source(tmp_path, "FER2013")
    assert found.templates[0].replace("{}", found.class_names[0]) == "a photo of a ['angry'] looking face."


def test_fer2013_of_clip_benchmark_counts_its_classes_in_another_order(tmp_path: Path) -> None:
    """In folders, neutral is label 4, by the alphabet; in the challenge's files it is 6."""
    keys = vision_set("FER2013").class_names()[1]
    written = webdataset(tmp_path, keys, [0, 1, 2, 3, 6, 4, 5])
    records = source(tmp_path, "FER2013", **{"from": "webdataset"}).records()["test"]
    assert [r.label for r in records] == [label for _, label in written["test"]]


def test_a_mirrors_names_are_matched_and_its_own_are_kept_where_the_set_has_none(tmp_path: Path) -> None:
    parquet(tmp_path / "a", CIFAR10, range(10))
    assert source(tmp_path / "a", "CIFAR10", **{"from": "huggingface"}).class_names == list(CIFAR10)
    parquet(tmp_path / "b", [name.removeprefix("a_") for name in OWN["SUN397"]], range(3))
    assert source(tmp_path / "b", "SUN397", **{"from": "huggingface"}).class_names[0] == "abbey"
    parquet(tmp_path / "c", ["plane", *CIFAR10[1:]], range(10))
    with pytest.raises(ValueError, match=r"the classes \['plane'\] are none of .* set the option classes_by: order"):
        source(tmp_path / "c", "CIFAR10", **{"from": "huggingface"})
    kept = source(tmp_path / "c", "CIFAR10", **{"from": "huggingface", "classes_by": "order"})
    assert kept.class_names == list(CIFAR10)


def test_a_plain_folder_serves_any_set(tmp_path: Path) -> None:
    written = folders(tmp_path, ("AnnualCrop", "Forest", "SeaLake"), {"train": "train", "test": "test"})
    found = source(tmp_path, "EuroSAT", **{"from": "folder"})
    assert len(found.records()["test"]) == len(written["test"])
    with pytest.raises(ValueError, match=r"tasks\.t\.options\.root: is required with from: folder"):
        image_source(TaskRequest("t", "vision/EuroSAT", {}, {"from": "folder"}))


def test_the_fingerprint_follows_the_files_and_what_is_read_from_them(tmp_path: Path) -> None:
    WRITERS["ImageNet"](tmp_path)
    first = source(tmp_path, "ImageNet").fingerprint
    assert source(tmp_path, "ImageNet").fingerprint == first
    np.save(tmp_path / "index.npy", np.zeros(30))
    assert source(tmp_path, "ImageNet", val_index=str(tmp_path / "index.npy")).fingerprint != first
    file = next((tmp_path / "imagenet/train").rglob("*.png"))
    file.write_bytes(file.read_bytes())
    assert source(tmp_path, "ImageNet").fingerprint != first


def test_imagenets_validation_is_model_soups_held_out_part(tmp_path: Path) -> None:
    written = WRITERS["ImageNet"](tmp_path)
    marks = np.zeros(30)
    marks[[3, 17]] = 1
    np.save(tmp_path / "imagenet_98_idxs.npy", marks)
    found = source(tmp_path, "ImageNet", val_index=str(tmp_path / "imagenet_98_idxs.npy"))
    records = found.records()
    assert [found.class_names[r.label] for r in records["val"]] == [
        IMAGENET_CLASSNAMES[1 + written["train"][i][1]] for i in (3, 17)
    ]
    assert len(found.train_records()) == 28
    np.save(tmp_path / "imagenet_98_idxs.npy", marks[1:])
    with pytest.raises(ValueError, match=r"must hold one 0 or 1 for each of the 30 training images, got shape \(29,\)"):
        found.records()
    (tmp_path / "imagenet_98_idxs.npy").write_bytes(pickle.dumps(marks))
    with pytest.raises(ValueError, match="cannot be read as a NumPy array of marks"):
        found.records()


def test_imagenet_without_its_training_images_is_a_test_set(tmp_path: Path) -> None:
    folders(tmp_path / "imagenet", WORDNET, {"test": "val"})
    assert set(source(tmp_path, "ImageNet").records()) == {"test"}


def test_shifted_sets_have_test_alone_and_imagenets_names(tmp_path: Path) -> None:
    for name in ("ImageNetV2", "ImageNetSketch", "ImageNetR", "ImageNetA"):
        WRITERS[name](tmp_path)
        assert set(source(tmp_path, name).records()) == {"test"}
    v2 = source(tmp_path, "ImageNetV2")
    # The folders 0, 1, 10 are numbers: as text, 10 would be the class 2.
    assert {v2.class_names[r.label] for r in v2.records()["test"]} == {IMAGENET_CLASSNAMES[i] for i in (0, 1, 10)}
    r, a = source(tmp_path, "ImageNetR"), source(tmp_path, "ImageNetA")
    assert r.class_names[:3] == [IMAGENET_CLASSNAMES[i] for i in (1, 2, 4)]
    assert a.class_names[:3] == [IMAGENET_CLASSNAMES[i] for i in (6, 11, 13)]
    assert {record.label for record in r.records()["test"]} == {0, 1, 2}
    assert {record.label for record in a.records()["test"]} == {0, 1}


def test_objectnets_logits_are_the_largest_of_its_imagenet_classes(tmp_path: Path, backbone: OpenClipBackbone) -> None:
    WRITERS["ObjectNet"](tmp_path)
    found = source(tmp_path, "ObjectNet")
    assert isinstance(found, GroupedSource)
    named = [[found.class_names[i] for i in group] for group in found.class_groups]
    assert named == [[IMAGENET_CLASSNAMES[765], IMAGENET_CLASSNAMES[559]], [IMAGENET_CLASSNAMES[610]]]
    task = load_task(TaskRequest("t", "vision/ObjectNet", {}, {"root": str(tmp_path), **LOOSE}), backbone)
    images = prepare(found, backbone.preprocess)["test"]
    assert isinstance(task, ZeroShotClassification)
    logits = backbone.encode(images.slice(0, len(images))) @ task.head_KD.T
    largest = torch.stack([logits[:, list(group)].max(dim=1).values for group in found.class_groups], dim=1)
    expected = largest.argmax(dim=1) == images.labels_N
    assert task.evaluate(backbone, "test", 0, len(images)).outcomes.tolist() == expected.tolist()
    assert logits.argmax(dim=1).max() == 2  # the head itself has three rows


def test_a_published_set_is_scored_and_trained_on_like_any_other(tmp_path: Path, backbone: OpenClipBackbone) -> None:
    pets(tmp_path / "oxford-iiit-pet", vision_set("OxfordIIITPet").class_names()[0])
    options = {"root": str(tmp_path), **LOOSE}
    task = load_task(TaskRequest("pets", "vision/OxfordIIITPet", {}, options, train=True), backbone)
    assert (task.num_samples("val"), task.num_samples("test"), task.num_samples("train")) == (4, 37, 36)
    assert task.evaluate(backbone, "val", 0, 4).stats.n == 4


def test_parquet_images_are_unpacked_once(tmp_path: Path) -> None:
    parquet(tmp_path, CIFAR10, range(10))
    found = source(tmp_path, "CIFAR10", **{"from": "huggingface"})
    found.records()
    blobs = sorted(cache_root().glob("unpacked/*/images.bin"))
    times = [b.stat().st_mtime_ns for b in blobs]
    found.train_records()
    assert len(blobs) == 2 and [b.stat().st_mtime_ns for b in blobs] == times


def test_classes_that_differ_between_train_and_test_are_refused(tmp_path: Path) -> None:
    """Labels are positions among a split's class folders, so an extra folder would shift them."""
    WRITERS["SUN397"](tmp_path)
    (tmp_path / "sun397/train/aa_extra").mkdir()
    with pytest.raises(
        ValueError, match=r"train and test must have the same classes in the same order: \['aa_extra'\]"
    ):
        source(tmp_path, "SUN397").records()
