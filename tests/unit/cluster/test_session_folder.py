"""Proves that Ray's session is in a folder short enough for its sockets, and closed to other users."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cluster import session_folder as module
from pipeline.cluster.session_folder import LONGEST, private_folder, session_folder

NAME = f"lines-{os.getuid()}"


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty TMPDIR with a short path; its folder `tmp` is used in place of /tmp."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        monkeypatch.setattr(module, "_SHORT", str(folder / "tmp"))
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        yield folder


def test_it_is_in_tmpdir_with_mode_0700_and_the_same_at_the_next_run(short: Path) -> None:
    assert session_folder() == short / NAME == session_folder()
    assert mode(short / NAME) == 0o700


def test_an_existing_folder_that_is_open_to_others_is_closed(short: Path) -> None:
    (short / NAME).mkdir()
    (short / NAME).chmod(0o777)
    assert mode(session_folder()) == 0o700


@pytest.mark.parametrize("bad", ["long", "missing", "a file"])
def test_with_a_tmpdir_that_cannot_be_used_it_is_in_tmp(bad: str, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"long": short / ("x" * 60), "missing": short / "none", "a file": short / "file"}
    places["long"].mkdir()
    places["a file"].touch()
    monkeypatch.setenv("TMPDIR", str(places[bad]))
    found = session_folder()
    assert found.parent == short / "tmp" and mode(found) == 0o700


def test_a_link_or_a_folder_of_another_user_is_not_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "open").mkdir(mode=0o777)
    (short / NAME).symlink_to(short / "open")
    assert session_folder().parent == short / "tmp"
    (short / "tmp" / NAME).rmdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (short / "lines-12345").mkdir()  # of the user who runs this test, not of 12345
    found = session_folder()
    assert found.parent == short / "tmp" and found.name.startswith("lines-") and mode(found) == 0o700
    assert found.name != "lines-12345"


def test_the_longest_folder_leaves_107_bytes_for_a_socket(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = short / ("x" * (LONGEST - len(str(short)) - 1))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with private_folder():
        assert os.environ["RAY_TMPDIR"] == str(folder) and folder.is_dir()
    assert len(f"{folder}/ray/session_2026-11-28_23-59-59_999999_4194304/sockets/plasma_store") <= 107


def test_a_ray_tmpdir_that_is_too_long_is_an_error(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = short / ("x" * (LONGEST - len(str(short))))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with pytest.raises(ValueError, match=rf"RAY_TMPDIR: {folder} has {LONGEST + 1} bytes, .* leave {LONGEST}: set it"):
        session_folder()


def test_a_ray_tmpdir_that_is_a_file_is_an_error(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(short / "file"))
    with pytest.raises(ValueError, match="RAY_TMPDIR: .*/file: File exists: set it to a folder that can be written"):
        session_folder()


def test_the_variable_is_only_set_while_ray_starts(short: Path) -> None:
    with private_folder():
        assert os.environ["RAY_TMPDIR"] == str(short / NAME)
    assert "RAY_TMPDIR" not in os.environ
