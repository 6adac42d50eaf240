"""Proves that options and files of published sets that would change labels are refused or get their own cache entry."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_mirrors import parquet
from published_sets import CIFAR10, fer2013, writers

from tasks.base import TaskRequest
from tasks.vision.decoded import prepare
from tasks.vision.images import TrainingSource
from tasks.vision.preprocess import Preprocess
from tasks.vision.published.catalogue import vision_set
from tasks.vision.published.files import VisionOptions
from tasks.vision.published.sets import VisionSource
from tasks.vision.sources import image_source

PLAIN = Preprocess((16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "squash")


def source(root: Path, name: str, **options: object) -> TrainingSource:
    given = {"root": str(root), "check_counts": False, **options}
    found = image_source(TaskRequest("t", f"vision/{name}", {}, given))
    assert isinstance(found, TrainingSource)
    return found


def test_what_was_let_through_is_not_found_when_counts_matter_again(tmp_path: Path) -> None:
    fer2013(tmp_path / "fer2013")
    prepare(source(tmp_path, "FER2013"), PLAIN)
    with pytest.raises(ValueError, match="expected 28709 train"):
        prepare(VisionSource(vision_set("FER2013"), VisionOptions(tmp_path)), PLAIN)


def test_labels_that_the_set_does_not_have_are_refused(tmp_path: Path) -> None:
    """A mirror's split without labels has -1 in every row, which would index the last class."""
    parquet(tmp_path, [""] * 10, range(10))
    file = tmp_path / "data/test-00000-of-00002.parquet"
    table = pq.ParquetFile(file).read()
    pq.write_table(table.set_column(1, "label", pa.array([-1] * len(table))), file)
    with pytest.raises(ValueError, match=r"has images labelled -1, counted from 0, and the set has 10 classes"):
        source(tmp_path, "MNIST", **{"from": "huggingface"}).records()


def test_classes_by_order_needs_as_many_as_the_set_has(tmp_path: Path) -> None:
    parquet(tmp_path, ["plane", *CIFAR10[2:]], range(9))
    with pytest.raises(ValueError, match=r"the classes \['plane'\] are none of"):
        source(tmp_path, "CIFAR10", **{"from": "huggingface", "classes_by": "order"})


def test_each_mirror_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a spec that names another mirror would be scored on the files of the first."""
    monkeypatch.setenv("LINES_SWEEP_DATA", str(tmp_path))
    parquet(tmp_path / "huggingface/CIFAR10", CIFAR10, range(10))
    request = TaskRequest("t", "vision/CIFAR10", {}, {"from": "huggingface"})
    assert image_source(request).class_names == list(CIFAR10)
    with pytest.raises(ValueError, match=r"no folder .*/huggingface/someone--cifar10"):
        image_source(TaskRequest("t", "vision/CIFAR10", {}, {**request.options, "repo": "someone/cifar10"}))
    with pytest.raises(ValueError, match=r"repo: names a mirror, so `from` must be one of huggingface, webdataset"):
        image_source(TaskRequest("t", "vision/CIFAR10", {}, {"repo": "someone/cifar10"}))


def test_a_part_of_gtsrb_keeps_its_labels(tmp_path: Path) -> None:
    """GTSRB's folders are numbers: a missing one must not shift the others."""
    written = writers()["GTSRB"](tmp_path)
    first = min((tmp_path / "gtsrb/GTSRB/Training").iterdir())
    gone = int(first.name)
    shutil.rmtree(first)
    found = source(tmp_path, "GTSRB")
    labels = [r.label for r in [*found.train_records(), *found.records()["val"]]]
    assert sorted(labels) == sorted(label for _, label in written["train"] if label != gone)
