"""Proves that a store that refuses, or gives no answer, or lacks a guarantee, loses nothing of a run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_place import names
from stored_run import FIRST, log_of, until, write

from pipeline.records.journal import FILE_NAME
from pipeline.storage import uploader
from pipeline.storage.run_folder import mirror_of, open_run
from tasks.files.object_store import StoreFolder
from tasks.files.store_errors import RemoteError, UnreachableError


def test_after_an_error_the_journal_is_there_and_the_lease_is_not(place: StoreFolder) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(place.url) as opened:
        write(opened.folder, FIRST)
        raise KeyboardInterrupt
    assert list(names(place)) == ["journal/000000000000000.jsonl"]


def test_an_error_of_refused_files_states_that_the_journal_is_uploaded(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: StoreFolder, path: Path, name: str) -> None:
        raise RemoteError(f"{self.url}/{name}: permission denied")

    monkeypatch.setattr(StoreFolder, "upload", refused)
    message = f"denied; the journal is whole there: `lines report {place.url}`"
    with pytest.raises(RemoteError, match=message), open_run(place.url) as opened:
        write(opened.folder, FIRST)
        (opened.folder / "report.html").write_text("page")
    assert log_of(place)


def test_a_store_that_overwrites_instead_of_creating_is_refused(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(self: StoreFolder, name: str, data: bytes) -> bool:
        StoreFolder.write(self, name, data)
        return True

    monkeypatch.setattr(StoreFolder, "create", create)
    with pytest.raises(RemoteError, match="ignores If-None-Match.*use another store"), open_run(place.url):
        pass
    assert not list(names(place))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RemoteError]]:
    """Errors that every creation of a segment raises while this list holds one."""
    errors: list[RemoteError] = []
    create = StoreFolder.create

    def failing(self: StoreFolder, name: str, data: bytes) -> bool:
        if errors and name.startswith("journal/"):
            raise errors[0]
        return create(self, name, data)

    monkeypatch.setattr(StoreFolder, "create", failing)
    yield errors


def fails(error: Callable[[], None]) -> bool:
    try:
        error()
    except RemoteError:
        return True
    return False


def test_a_store_that_refuses_stops_the_run_and_the_next_start_sends_what_was_kept(
    place: StoreFolder, refused: list[RemoteError]
) -> None:
    refused.append(RemoteError("permission denied to write"))
    raised = pytest.raises(RemoteError, match="permission denied to write; what was scored is kept in .* next start")
    with raised, open_run(place.url) as opened:
        write(opened.folder, FIRST)
        until(lambda: fails(opened.check))
    assert not log_of(place)
    kept = (mirror_of(place.url) / FILE_NAME).read_bytes()
    refused.clear()
    notes: list[str] = []
    with open_run(place.url, notes.append):
        pass
    assert log_of(place) == kept and kept.count(b"\n") == 1
    assert len(notes) == 1 and "were not sent to the store by an earlier run" in notes[0]


def test_a_store_that_gives_no_answer_for_a_while_is_waited_for(
    place: StoreFolder, refused: list[RemoteError], caplog: pytest.LogCaptureFixture
) -> None:
    refused.append(UnreachableError("no answer"))
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        until(lambda: caplog.records)
        opened.check()
        refused.clear()
        until(lambda: log_of(place))
        opened.check()
    assert [r.message.split(";")[0] for r in caplog.records] == [
        "no answer",
        "the store answers again, and holds what was scored meanwhile",
    ]


def test_a_store_that_gives_no_answer_for_too_long_ends_the_run(
    place: StoreFolder, refused: list[RemoteError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploader, "PATIENCE", 0.05)
    refused.append(UnreachableError("no answer"))
    with pytest.raises(RemoteError, match="no answer; what was scored is kept in"), open_run(place.url) as opened:
        write(opened.folder, FIRST)
        until(lambda: fails(opened.check))


def test_a_store_that_looks_before_it_writes_is_refused(tmp_path: Path) -> None:
    raised = pytest.raises(RemoteError, match="cannot create exclusively .*use s3:// or gs://, or --out with a folder")
    with raised, open_run(f"file://{tmp_path}/run".replace("///", "//x/")):
        pass
