"""Proves that a set is fetched whole or not at all: after a kill, by two processes at once, next to a user's files."""

import hashlib
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torchvision
from published_sets import writers

from tasks.vision.published.catalogue import vision_set
from tasks.vision.published.download import fetch
from tasks.vision.published.files import VisionOptions

SET = vision_set("RenderedSST2")


@pytest.fixture(autouse=True)
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the archive that torchvision fetches from this machine."""
    writers()["RenderedSST2"](tmp_path / "made")
    archive = tmp_path / "rendered-sst2.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made/rendered-sst2", "rendered-sst2")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(
        torchvision.datasets.RenderedSST2, "_URL", f"http://127.0.0.1:{server.server_port}/rendered-sst2.tgz"
    )
    monkeypatch.setattr(torchvision.datasets.RenderedSST2, "_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    yield archive
    server.shutdown()
    server.server_close()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_fetched_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    root = tmp_path / "data"
    fetch(SET, VisionOptions(root))
    assert files(root) == files(tmp_path / "made")
    assert [p.name for p in root.iterdir()] == ["rendered-sst2"]


def test_what_a_kill_left_half_unpacked_is_unpacked_anew(tmp_path: Path, published: Path) -> None:
    """The class of torchvision takes an existing folder for the whole set."""
    scratch = tmp_path / "data/.fetching-RenderedSST2"
    (scratch / "rendered-sst2/train/negative").mkdir(parents=True)
    (scratch / "rendered-sst2/train/negative/000.png").write_bytes(b"cut")
    (scratch / "rendered-sst2.tgz").write_bytes(published.read_bytes())
    published.unlink()  # the archive that was downloaded already is used
    fetch(SET, VisionOptions(tmp_path / "data"))
    assert files(tmp_path / "data") == files(tmp_path / "made")


def test_two_that_fetch_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(fetch, SET, VisionOptions(root)) for _ in range(2)]:
            future.result()
    assert files(root) == files(tmp_path / "made")


def test_a_wrong_checksum_leaves_no_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.RenderedSST2, "_MD5", "0" * 32)
    with pytest.raises(ValueError, match=r"vision/RenderedSST2: the download failed .*to get it by hand: unpack"):
        fetch(SET, VisionOptions(tmp_path / "data"))
    assert not (tmp_path / "data/rendered-sst2").exists()


def test_a_users_folder_is_left_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "data/rendered-sst2/train/negative/mine.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    fetch(SET, VisionOptions(tmp_path / "data"))
    assert files(tmp_path / "data") == {"rendered-sst2/train/negative/mine.png": b"mine"}
