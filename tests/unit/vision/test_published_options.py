"""Proves that wrong options, counts and places of published sets are named."""

import logging
from pathlib import Path
from typing import Any

import pytest
from published_sets import fer2013, writers

from tasks.base import TaskRequest
from tasks.vision.published.catalogue import vision_set
from tasks.vision.published.files import JOB, VisionOptions, vision_options
from tasks.vision.published.sets import VisionSource
from tasks.vision.sources import image_source


def test_other_counts_are_refused_with_both(tmp_path: Path) -> None:
    fer2013(tmp_path / "fer2013")
    message = (
        r"expected 28709 train, 7178 test, 7 classes; got 30 train, 8 test, 7 classes: usually .* check_counts: false"
    )
    with pytest.raises(ValueError, match=message):
        VisionSource(vision_set("FER2013"), VisionOptions(tmp_path)).records()


def test_counts_that_nobody_has_published_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """EuroSAT's counts were inferred from the authors' accuracies."""
    writers()["EuroSAT"](tmp_path)
    with caplog.at_level(logging.WARNING):
        VisionSource(vision_set("EuroSAT"), VisionOptions(tmp_path)).records()
    assert "expected 2335 val, 2387 test" in caplog.text


def test_a_set_that_is_not_there_is_told_with_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"no folder .*/stanford_cars: the authors' host is gone.*\(ROOT is "):
        image_source(TaskRequest("t", "vision/Cars"))
    with pytest.raises(ValueError, match=r"no folder .*/MNIST/raw: `lines prepare` fetches it; or put train-images"):
        image_source(TaskRequest("t", "vision/MNIST"))
    with pytest.raises(ValueError, match=r"vision/CIFAR1O: no such data set; did you mean 'CIFAR10'"):
        image_source(TaskRequest("t", "vision/CIFAR1O"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from": "kaggle"}, r"from: must be one of torchvision, .*, got 'kaggle'"),
        ({"root": "data"}, r"root: must be an absolute path, .*, got 'data'"),
        ({"classes_by": "size"}, r"classes_by: must be name or order, got 'size'"),
        ({"check_counts": "no"}, r"check_counts: must be true or false, got 'no'"),
        ({"repo": 3}, r"repo: must be OWNER/NAME of the hub, got 3"),
        ({"rooot": "/data"}, r"rooot: unknown option; did you mean 'root'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"tasks\.t\.options\.{message}"):
        image_source(TaskRequest("t", "vision/MNIST", {}, options))


def test_relative_paths_are_refused_but_in_a_job_whose_folder_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may start a spec in any folder; all nodes of a job start in one that holds the spec's files."""
    (tmp_path / "data").mkdir()
    (tmp_path / "index.npy").touch()
    values = {"root": "data", "val_index": "index.npy"}
    monkeypatch.chdir(tmp_path)
    for name, value in values.items():
        with pytest.raises(ValueError, match=rf"options\.{name}: must be an absolute path, .*, got '{value}'"):
            vision_options("options", {name: value})
    monkeypatch.setenv(JOB, "1")
    found = vision_options("options", values)
    assert (found.root, found.val_index) == (tmp_path / "data", tmp_path / "index.npy")
    with pytest.raises(ValueError, match=r"options\.root: must be an absolute path, .*, got 'gone'"):
        vision_options("options", {"root": "gone"})
