"""Proves that memory is written once for all processes, stays as it was written, and is freed however they end."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tasks.files import shared_memory as module
from tasks.files import temporary
from tasks.files.shared_memory import IS_AVAILABLE, shared_memory

CONTENT = os.urandom(100_000)
CODE = """
import sys, tempfile
from tasks.files.shared_memory import shared_memory
tempfile.tempdir = sys.argv[1]
def create():
    print("created", flush=True)
    return [memoryview(bytes(range(256)))]
mapped = shared_memory("key", create)
mapped[:1] = b"!"
print(bytes(mapped).hex(), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of marks and locks; no other test uses it."""
    if not IS_AVAILABLE:
        pytest.skip("the system has no memory files")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    temporary.temporary_folder.cache_clear()
    yield tmp_path / f"lines-cache-{os.getuid()}"
    temporary.temporary_folder.cache_clear()


def never() -> list[memoryview]:
    raise AssertionError("another process has it")


def marks(folder: Path) -> list[Path]:
    return sorted(folder.glob("key-*.*-*"))


def child(temp: Path) -> Popen[str]:
    return Popen([sys.executable, "-c", CODE, str(temp.parent)], stdin=PIPE, stdout=PIPE, text=True)


def test_another_process_maps_what_the_first_has_written_and_cannot_change_it(temp: Path) -> None:
    mapped = shared_memory("key", lambda: [memoryview(CONTENT)[:7], memoryview(CONTENT)[7:]])
    with child(temp) as other:
        assert other.stdout.readline().strip() == (b"!" + CONTENT[1:]).hex(), "created nothing, and changed its own map"
        assert bytes(mapped) == CONTENT
        (own,) = (int(mark.name.rpartition("-")[2]) for mark in marks(temp) if f".{os.getpid()}-" in mark.name)
        with pytest.raises(PermissionError):
            os.pwrite(own, b"!", 0)
        assert len(marks(temp)) == 2
        other.communicate("\n")
    assert len(marks(temp)) == 1


def test_a_killed_process_leaves_nothing_but_a_mark_which_the_next_one_removes(temp: Path) -> None:
    with child(temp) as other:
        assert other.stdout.readline() == "created\n"
        content = bytes(range(256))
        other.stdout.readline()
        survivor = shared_memory("key", never)
        other.kill()
        other.wait()
        assert bytes(survivor) == content == bytes(shared_memory("key", never))
    assert all(f".{os.getpid()}-" in mark.name for mark in marks(temp))
    del survivor
    gc.collect()
    assert not marks(temp)
    assert bytes(shared_memory("key", lambda: [memoryview(b"new")])) == b"new"


def test_a_mark_of_another_process_with_the_same_number_is_not_believed(temp: Path) -> None:
    held = os.open(__file__, os.O_RDONLY)
    folder = temporary.temporary_folder()
    mark = folder / f"key-{os.stat('/proc/self/ns/pid').st_ino}.{os.getpid()}-{held}"
    mark.touch()
    assert bytes(shared_memory("key", lambda: [memoryview(b"mine")])) == b"mine"
    assert not mark.exists()
    os.close(held)


def test_an_error_while_it_is_made_leaves_the_key_free(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AssertionError):
        shared_memory("key", never)
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "the lock of the folder"
    assert bytes(shared_memory("key", lambda: [memoryview(b"mine")])) == b"mine"
    monkeypatch.setattr(module, "IS_AVAILABLE", False)
    with pytest.raises(OSError, match="has no memory files"):
        shared_memory("key", never)
