"""Proves that a cache entry is either what was written or made again, with a warning, and that it survives kills."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import flip

from tasks.files import manifest
from tasks.files.atomic import write_whole
from tasks.files.cache import built, cache_root, cached, is_cached
from tasks.files.manifest import manifest_path

FILES = {"val.arrow": b"pictures" * 1000, "val.json": b"{}", "test.arrow": b"more pictures"}


def entry(made: list[str] | None = None) -> Path:
    def create(partial: Path) -> None:
        partial.mkdir()
        for name, content in FILES.items():
            (partial / name).write_bytes(content)
        if made is not None:
            made.append(partial.name)

    return cached(cache_root() / "images" / "key", create)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda folder: flip(folder / "val.arrow", 4000),
    "a cut file": lambda folder: os.truncate(folder / "val.arrow", 100),
    "an empty file": lambda folder: (folder / "val.json").write_bytes(b""),
    "a deleted file": lambda folder: (folder / "val.arrow").unlink(),
    "an empty folder": emptied,
    "a file": replaced_by_a_file,
    "no manifest": lambda folder: manifest_path(folder).unlink(),
    "a cut manifest": lambda folder: os.truncate(manifest_path(folder), 20),
    "an empty manifest": lambda folder: manifest_path(folder).write_bytes(b""),
    "a list as manifest": lambda folder: manifest_path(folder).write_text('{"files": [1]}'),
    "a manifest of other files": lambda folder: manifest_path(folder).write_text('{"files": {"x": [1, "2"]}}'),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_made_again_with_a_warning(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = entry()
    DAMAGE[kind](folder)
    assert not is_cached(folder)
    made: list[str] = []
    assert entry(made) == folder and made == ["key"]
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES
    assert f"cache {folder}: " in caplog.text and "it is made again" in caplog.text
    assert entry(made) == folder and made == ["key"], "the new entry is believed"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["key", "key.lock", "key.manifest"]


def test_a_deleted_entry_is_made_again_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(entry())
    made: list[str] = []
    entry(made)
    assert made == ["key"] and not caplog.text


@pytest.mark.parametrize("offset", [0, 3999, 7999])
def test_a_flip_in_any_block_of_a_single_file_is_found(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_BLOCK", 1000)
    path = cached(cache_root() / "heads" / "key", lambda partial: partial.write_bytes(b"pictures" * 1000))
    flip(path, offset, bit=7)
    assert not is_cached(path)
    again = cached(path, lambda partial: partial.write_bytes(b"other"))
    assert again.read_bytes() == b"other" and is_cached(path)


def test_files_are_hashed_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = entry()
    hashed: list[Path] = []
    mark = manifest._mark
    monkeypatch.setattr(manifest, "_mark", lambda path: hashed.append(path) or mark(path))
    for _ in range(3):
        assert is_cached(folder)
    assert len(hashed) == len(FILES)
    os.utime(folder / "val.json", (1, 1))
    assert is_cached(folder) and len(hashed) == 2 * len(FILES)


def test_what_cannot_be_made_again_stays(caplog: pytest.LogCaptureFixture) -> None:
    folder = entry()
    manifest_path(folder).unlink()

    def fail(partial: Path) -> None:
        raise ValueError("the images are gone")

    with pytest.raises(ValueError, match="the images are gone"):
        cached(folder, fail)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES


@pytest.mark.parametrize("step", range(4))
def test_a_kill_while_it_is_moved_leaves_an_entry_that_is_made_again(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two changes of names: then the next process removes the remains."""
    folder, steps = entry(), iter(range(4))
    flip(folder / "val.arrow", 0)

    def killed_at(real: Callable[..., object]) -> Callable[..., object]:
        def change(*args: object, **options: object) -> object:
            if next(steps, None) == step:
                raise KeyboardInterrupt
            return real(*args, **options)

        return change

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed_at(Path.unlink))
        patch.setattr(Path, "rename", killed_at(Path.rename))
        patch.setattr(Path, "replace", killed_at(Path.replace))
        patch.setattr(shutil, "rmtree", lambda *args, **options: None)
        entry()
    assert {p.name: p.read_bytes() for p in entry().iterdir()} == FILES
    assert sorted(p.name for p in folder.parent.iterdir()) == ["key", "key.lock", "key.manifest"]


def test_files_and_folders_are_on_the_disk_before_they_get_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.split('.')[0]}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", lambda self, to: events.append("rename") or replace(self, to))
    write_whole(tmp_path / "table", "content")
    assert events == ["sync table", "rename", f"sync {tmp_path.name}"]
    events.clear()
    entry()
    assert {"sync key", "sync val", "sync test"} <= set(events[: events.index("rename")])


def test_a_built_model_that_is_damaged_names_the_command_that_builds_it() -> None:
    assert built("small") is None
    folder = cached(cache_root() / "language" / "small", lambda partial: partial.mkdir())
    assert built("small") == folder
    model = cached(cache_root() / "language" / "other", lambda partial: partial.write_bytes(b"x")).parent / "other"
    flip(model, 0)
    with pytest.raises(ValueError, match="size or hash differ.*; `make bases` or `make rewarded-soups` builds it"):
        built("other")
    manifest_path(folder).unlink()
    assert built("small") == folder, "older versions wrote no manifest"


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> str:
        raise PermissionError(13, "Permission denied", str(cache_root() / "images" / "key.partial-x"))

    monkeypatch.setattr("tasks.files.cache.tempfile.mkdtemp", refuse)
    with pytest.raises(ValueError, match="images: cannot be written .Permission denied.; set LINES_SWEEP_CACHE"):
        entry()


def test_a_cache_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made .*set LINES_SWEEP_CACHE"):
        cached(tmp_path / "file" / "x" / "entry", lambda path: path.mkdir())


def test_one_creates_while_the_others_wait(tmp_path: Path) -> None:
    calls: list[int] = []

    def create(path: Path) -> None:
        calls.append(1)
        path.write_text("whole")

    threads = [threading.Thread(target=cached, args=(tmp_path / "x" / "entry", create)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and (tmp_path / "x" / "entry").read_text() == "whole"


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    stale = tmp_path / "entry.partial-abc"
    stale.mkdir()
    (stale / "entry").write_text("half")
    cached(tmp_path / "entry", lambda path: path.mkdir())
    assert (tmp_path / "entry").is_dir() and not stale.exists()
