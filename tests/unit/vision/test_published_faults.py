"""Proves that system files in published sets are skipped, and that their bad images and dead links are all named."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from published_mirrors import parquet, webdataset
from published_sets import CIFAR10, folders, writers

from tasks.base import TaskRequest
from tasks.vision.decoded import prepare
from tasks.vision.images import BadImages
from tasks.vision.preprocess import Preprocess
from tasks.vision.published.formats.listing import FilesMissing
from tasks.vision.published.sets import VisionSource
from tasks.vision.sources import image_source

PLAIN = Preprocess((16, 16), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), "bicubic", "shortest")
APPLE_DOUBLE = bytes.fromhex("00051607000200004d6163204f532058") + bytes(200)


def source(root: Path, origin: str, name: str = "") -> VisionSource:
    options = {"root": str(root), "check_counts": False, "from": origin}
    found = image_source(TaskRequest("t", f"vision/{name or NAMES[origin]}", {}, options))
    assert isinstance(found, VisionSource)
    return found


def litter(folder: Path) -> None:
    """Leave a folder as macOS, Jupyter and a NAS do."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        (folder / name).mkdir()
        for path in files:
            shutil.copy(path, folder / name / path.name)
    for path in files:
        (folder / f"._{path.name}").write_bytes(APPLE_DOUBLE)


def add(shard: Path, names: list[str]) -> None:
    with tarfile.open(shard, "a") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(APPLE_DOUBLE)
            tar.addfile(member, io.BytesIO(APPLE_DOUBLE))


NAMES = {"folder": "RenderedSST2", "huggingface": "CIFAR10", "webdataset": "CIFAR10"}
WRITE = {
    "folder": lambda root: folders(root, ("negative", "positive"), {"train": "train", "test": "test"}),
    "huggingface": lambda root: parquet(root, CIFAR10, range(10)),
    "webdataset": lambda root: webdataset(root, CIFAR10, range(10)),
}


@pytest.mark.parametrize("origin", WRITE)
def test_system_files_are_skipped(tmp_path: Path, origin: str) -> None:
    WRITE[origin](tmp_path)
    before = prepare(source(tmp_path, origin), PLAIN)
    for folder in [tmp_path, *(path for path in sorted(tmp_path.rglob("*")) if path.is_dir())]:
        litter(folder)
    if origin == "webdataset":
        add(tmp_path / "test" / "0.tar", ["._s0000000.png", "__MACOSX/._s0000001.cls", "./._s0000001.png"])
    after = prepare(source(tmp_path, origin), PLAIN)
    assert {split: images.fingerprint for split, images in after.items()} == {
        split: images.fingerprint for split, images in before.items()
    }


@pytest.mark.parametrize("origin", ["folder", "webdataset"])
def test_all_bad_images_are_named(tmp_path: Path, origin: str) -> None:
    WRITE[origin](tmp_path)
    if origin == "folder":
        for i, path in enumerate(sorted((tmp_path / "test").rglob("*.png"))[:3]):
            path.write_bytes(b"no image %d" % i)
    else:
        shard = tmp_path / "test" / "0.tar"
        data = bytearray(shard.read_bytes())
        with tarfile.open(shard) as tar:
            places = [member.offset_data for member in tar if member.name.endswith(".png")][:3]
        for i, place in enumerate(places):
            data[place : place + 8] = b"no png %d" % i
        shard.write_bytes(data)
    with pytest.raises(BadImages, match=f"vision/{NAMES[origin]}: 3 images cannot be decoded; repair") as caught:
        prepare(source(tmp_path, origin), PLAIN)
    assert len(str(caught.value).splitlines()) == 4


def test_bad_images_that_lose_their_border_are_named(tmp_path: Path) -> None:
    writers()["ObjectNet"](tmp_path)
    paths = sorted((tmp_path / "objectnet-1.0" / "images" / "chair").glob("*.png"))[:2]
    for path in paths:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadImages, match="vision/ObjectNet: 2 images cannot be decoded") as caught:
        prepare(source(tmp_path, "torchvision", "ObjectNet"), PLAIN)
    assert all(f"{path}: " in str(caught.value) for path in paths)


@pytest.mark.parametrize("origin", ["folder", "huggingface"])
def test_dead_links_are_counted(tmp_path: Path, origin: str) -> None:
    WRITE[origin](tmp_path)
    for path in sorted(path for path in tmp_path.rglob("*.p*") if path.name.endswith((".png", ".parquet")))[:2]:
        path.unlink()
        path.symlink_to(f"/no/mount/{path.name}")
    with pytest.raises(FilesMissing, match="2 links lead nowhere"):
        prepare(source(tmp_path, origin), PLAIN)
