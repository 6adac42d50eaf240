"""Proves that `lines prepare` writes the same bytes with and without Ray, once, and reports what is missing."""

import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from published_mirrors import parquet
from published_sets import CIFAR10, writers
from small_run import Lines

WRITERS = writers()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Data sets of every kind of image: files, arrays, slices of a file, rows of HDF5, cropped images."""
    data = tmp_path / "data"
    for name in ("OxfordIIITPet", "MNIST", "PCAM", "ObjectNet"):
        WRITERS[name](data)
    parquet(data / "mirror", CIFAR10, range(10))
    return data


@pytest.fixture
def spec(lines: Lines, root: Path) -> Callable[..., Path]:
    def write(pool: str = "local", extra: tuple[str, ...] = ()) -> Path:
        options = {"root": str(root), "check_counts": False}

        def task(name: str, **changes: object) -> dict[str, object]:
            return {"source": f"vision/{name}", "options": {**options, **changes}}

        tasks = {"clipart": task("OxfordIIITPet"), "mnist": task("MNIST"), "pcam": task("PCAM")}
        tasks["cifar"] = task("CIFAR10", root=str(root / "mirror"), **{"from": "huggingface"})
        tasks |= {name: task(name) for name in extra}
        return lines.spec(tasks=tasks, ood={"objects": task("ObjectNet")}, resources={"pool": pool}, limits={})

    return write


def decoded(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.glob("images/*/*")) if p.is_file()}


def turn(paths: list[Path]) -> None:
    """Replace images by dark greyscale of 16 bits with an EXIF orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for i, path in enumerate(paths):
        Image.fromarray(np.full((10, 14), i + 1, np.uint16)).save(path, "png", exif=exif)


@pytest.mark.cluster
def test_ray_writes_the_files_that_one_process_writes(
    lines: Lines, spec: Callable[..., Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn(sorted((root / "oxford-iiit-pet/images").glob("*.jpg")))
    for pool in ("local", "ray"):
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path / pool))
        status, output = lines("prepare", spec(pool))
        assert status == 0, output
    one, many = decoded(tmp_path / "local"), decoded(tmp_path / "ray")
    assert len(one) == 4 * 4 + 2 and one == many
    assert any(b'"notes": {"dim": 37, "turned": 37}' in text for text in one.values())


def test_what_is_prepared_is_left_as_it_is_and_validates(lines: Lines, spec: Callable[..., Path]) -> None:
    status, output = lines("prepare", spec())
    assert status == 0 and "ready" not in output
    status, output = lines("prepare", spec())
    assert status == 0 and output.count("ready") == 5
    status, output = lines("validate", spec())
    assert status == 0 and "5 tasks" in output


def test_one_broken_set_keeps_no_other_one_waiting(lines: Lines, spec: Callable[..., Path], root: Path) -> None:
    image = next((root / "oxford-iiit-pet/images").glob("*.jpg"))
    whole = image.read_bytes()
    image.write_bytes(b"not an image")
    status, output = lines("prepare", spec())
    assert status == 2 and f"missing: clipart: {image}: cannot decode this image" in output
    image.write_bytes(whole)
    status, output = lines("prepare", spec())
    assert status == 0 and output.count("ready") == 4


@pytest.mark.parametrize("pool", ["local", pytest.param("ray", marks=pytest.mark.cluster)])
def test_all_bad_images_of_a_set_are_one_problem(
    lines: Lines, spec: Callable[..., Path], root: Path, pool: str
) -> None:
    listed = (root / "oxford-iiit-pet/annotations/test.txt").read_text().split()[::4]
    images = [root / f"oxford-iiit-pet/images/{name}.jpg" for name in listed[:3]]
    for i, image in enumerate(images):
        image.write_bytes(b"not an image" + bytes([i]))
    status, output = lines("prepare", spec(pool))
    assert status == 2 and "missing: clipart: vision/OxfordIIITPet: 3 images cannot be decoded" in output
    assert all(f"{image}: cannot identify image file" in output for image in images) and output.count("ready") == 0


@pytest.fixture
def nothing_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every request of a test to a proxy that does not exist."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib keeps the proxies of its first request: later tests would use them too.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.mark.usefixtures("nothing_in_reach")
def test_the_error_of_a_failed_download_names_the_place_of_the_files(lines: Lines, spec: Callable[..., Path]) -> None:
    status, output = lines("prepare", spec(extra=("Cars", "KMNIST")))
    assert status == 2
    assert "missing: Cars: vision/Cars: no folder" in output and "the authors' host is gone" in output
    assert "missing: KMNIST: vision/KMNIST: the download failed" in output
    assert "to get it by hand: put the four idx files, unpacked, into ROOT/KMNIST/raw" in output
    assert "clipart" in output and "cifar" in output


@pytest.mark.usefixtures("nothing_in_reach")
def test_a_hub_mirror_out_of_reach_is_an_error(lines: Lines, root: Path, tmp_path: Path) -> None:
    mirror = {"source": "vision/DTD", "options": {"root": str(tmp_path / "hub"), "from": "huggingface"}}
    written = {"source": "vision/MNIST", "options": {"root": str(root), "check_counts": False}}
    status, output = lines("prepare", lines.spec(tasks={"clipart": mirror, "mnist": written}))
    assert status == 2 and "missing: clipart: vision/DTD: the download failed" in output


def test_counts_are_checked(lines: Lines, root: Path) -> None:
    task = {"source": "vision/PCAM", "options": {"root": str(root)}}
    status, output = lines("prepare", lines.spec(tasks={"clipart": task, "mnist": "embedded/mnist"}))
    assert status == 2
    assert "expected 262144 train, 32768 test, 2 classes; got 30 train, 8 test, 2 classes" in output


def test_an_incomplete_folder_is_left_and_reported(lines: Lines, tmp_path: Path) -> None:
    """Its torchvision class would consider it complete, and download nothing."""
    WRITERS["KMNIST"](tmp_path / "data")
    cut = tmp_path / "data/KMNIST/raw/train-labels-idx1-ubyte"
    cut.unlink()
    task = {"source": "vision/KMNIST", "options": {"root": str(tmp_path / "data")}}
    status, output = lines("prepare", lines.spec(tasks={"clipart": task, "mnist": "embedded/mnist"}))
    assert status == 2 and not cut.exists()
    assert f"or move {cut.parent} away, and `lines prepare` fetches the set again" in output
