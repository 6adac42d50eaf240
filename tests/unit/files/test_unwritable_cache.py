"""Proves that a cache which this user may only read is read on: what is damaged there is made in a temporary folder."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from damage import flip
from unwritable import unwritable

from tasks.files import cache, temporary
from tasks.files.cache import UnwritableError, cache_root, cached
from tasks.files.manifest import manifest_path

CONTENT = b"pictures" * 1000


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder for temporary files, with nothing in it that this process uses."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for function in (cache._instead, temporary.temporary_folder):
        function.cache_clear()
    yield tmp_path
    for function in (cache._instead, temporary.temporary_folder):
        function.cache_clear()


def entry(key: str, made: list[str], content: bytes = CONTENT) -> Path:
    def create(partial: Path) -> None:
        partial.mkdir()
        (partial / "val.arrow").write_bytes(content)
        made.append(key)

    return cached(cache_root() / "images" / key, create)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_damaged_or_old_is_made_in_a_temporary_folder_with_one_warning(
    temp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []
    whole, damaged, old = (entry(key, made) for key in ("whole", "damaged", "old"))
    flip(damaged / "val.arrow", 4000)
    manifest_path(old).unlink()
    before, made[:] = files(cache_root()), []
    with unwritable(cache_root()), caplog.at_level(logging.WARNING):
        assert entry("whole", made) == whole
        for key in ("damaged", "old", "damaged", "old"):
            instead = entry(key, made)
            assert instead == temp / f"lines-cache-{os.getuid()}" / "images" / key
            assert (instead / "val.arrow").read_bytes() == CONTENT
    assert made == ["damaged", "old"], "once each"
    assert files(cache_root()) == before
    (line,) = caplog.messages
    assert line.startswith(f"cache {cache_root()}: cannot be written by this user") and str(temp) in line
    assert "run the command once as a user who can write there, or set LINES_SWEEP_CACHE" in line


def test_what_is_damaged_in_the_temporary_folder_is_made_again(temp: Path) -> None:
    made: list[str] = []
    manifest_path(entry("key", made)).unlink()
    with unwritable(cache_root()):
        flip(entry("key", made) / "val.arrow", 4000)
        assert (entry("key", made) / "val.arrow").read_bytes() == CONTENT
    assert len(made) == 3


def test_what_was_never_there_is_an_error_that_names_the_remedy(temp: Path) -> None:
    made: list[str] = []
    entry("other", made)
    with unwritable(cache_root()), pytest.raises(UnwritableError) as caught:
        entry("key", made)
    folder = cache_root() / "images"
    assert str(caught.value) == (
        f"cache {folder}: cannot be written (Permission denied); set LINES_SWEEP_CACHE to another folder"
    )
    assert made == ["other"] and not list(temp.iterdir())


def test_without_any_place_for_temporary_files_the_error_names_both(temp: Path) -> None:
    manifest_path(entry("key", [])).unlink()
    with unwritable(cache_root()), unwritable(temp), pytest.raises(ValueError, match="nor can a temporary folder .*"):
        entry("key", [])


class Process:
    """A process that uses the temporary folder. It ends when `end` or `kill` is called."""

    def __init__(self, temp: Path) -> None:
        code = "from tasks.files.temporary import temporary_folder; print(temporary_folder(), flush=True); input()"
        self._process = Popen(
            [sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(temp)}, stdin=PIPE, stdout=PIPE, text=True
        )
        assert self._process.stdout
        self.folder = Path(self._process.stdout.readline().strip())

    def end(self) -> None:
        self._process.communicate("\n", timeout=60)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)


def test_the_last_process_removes_the_temporary_folder(temp: Path) -> None:
    first, second = Process(temp), Process(temp)
    assert first.folder == second.folder and first.folder.parent == temp
    assert first.folder.stat().st_mode & 0o777 == 0o700
    first.end()
    assert second.folder.is_dir()
    second.end()
    assert not list(temp.iterdir())


def test_what_a_killed_process_left_is_removed_once_no_process_uses_it(temp: Path) -> None:
    temporary.remove_unused()  # nothing is there yet
    killed, other = Process(temp), Process(temp)
    (killed.folder / "images").mkdir()
    killed.kill()
    temporary.remove_unused()
    assert (killed.folder / "images").is_dir(), "the other process uses it"
    other.kill()
    temporary.remove_unused()
    assert not list(temp.iterdir())


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_name_that_is_taken_is_not_used(kind: str, temp: Path) -> None:
    taken, elsewhere = temp / f"lines-cache-{os.getuid()}", temp / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if kind == "a link":
        taken.symlink_to(elsewhere)
    elif kind == "a file":
        taken.touch()
    else:
        taken.mkdir()
        taken.chmod(0o777)
    process = Process(temp)
    assert process.folder != taken and process.folder.name.startswith(taken.name)
    process.end()
    assert sorted(temp.iterdir()) == [elsewhere, taken] and not list(elsewhere.iterdir())
