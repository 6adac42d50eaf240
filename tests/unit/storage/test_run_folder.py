"""Proves that a run in a store is worked in a local copy: resumed, uploaded, kept when the store fails."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_place import memory_place, names

from pipeline.cli.index import common_place, index_of
from pipeline.errors import LockedError
from pipeline.records.journal import FILE_NAME, Journal
from pipeline.storage import lease, uploader
from pipeline.storage.lease import Lease
from pipeline.storage.run_folder import mirror_of, open_run, run_folder
from pipeline.storage.segments import Chain
from tasks.files.object_store import StoreFolder
from tasks.files.store_errors import RemoteError, UnreachableError

FIRST, SECOND = {"spec": {"name": "x"}}, {"spec": {"name": "y"}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "EVERY", 0.01)
    monkeypatch.setattr(lease, "LOOK", 0.01)
    monkeypatch.setattr(lease, "GONE", 0.1)


@pytest.fixture
def place() -> StoreFolder:
    return memory_place()


def write(folder: Path, *identities: dict[str, dict[str, str]]) -> None:
    journal = Journal(folder)
    for identity in identities:
        journal.header(identity)
    journal.close()


def log_of(place: StoreFolder) -> bytes:
    return Chain(place, "reader").read()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_path_is_its_own_folder(tmp_path: Path) -> None:
    with open_run(str(tmp_path / "run")) as opened:
        assert opened.folder == tmp_path / "run"
        opened.check()
    with run_folder(str(tmp_path / "run"), write=True) as folder:
        assert folder == tmp_path / "run"


def test_lines_are_sent_while_the_run_works_and_files_at_its_end(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        until(lambda: log_of(place))
        (opened.folder / "samples").mkdir()
        (opened.folder / "samples" / "x.parquet").write_bytes(b"table")
        (opened.folder / "report.html.partial").write_bytes(b"half")
        journal = (opened.folder / FILE_NAME).read_bytes()
    assert log_of(place) == journal
    assert list(names(place)) == ["journal/000000000000000.jsonl", "samples/x.parquet"]


def test_files_that_readers_need_are_uploaded_while_the_run_works(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        (opened.folder / "prompts.parquet").write_bytes(b"prompts")
        opened.upload()
        with run_folder(place.url) as folder:
            assert (folder / "prompts.parquet").read_bytes() == b"prompts"


def test_another_machine_resumes_the_run(place: StoreFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        first = (opened.folder / FILE_NAME).read_bytes()
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path))
    with open_run(place.url) as opened:
        assert opened.folder.is_relative_to(tmp_path) and (opened.folder / FILE_NAME).read_bytes() == first
        write(opened.folder, SECOND)
    assert log_of(place).startswith(first) and log_of(place).count(b"\n") == 2


def test_after_an_error_the_journal_is_there_and_the_lease_is_not(place: StoreFolder) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(place.url) as opened:
        write(opened.folder, FIRST)
        raise KeyboardInterrupt
    assert list(names(place)) == ["journal/000000000000000.jsonl"]


def test_a_second_run_on_this_machine_is_refused(place: StoreFolder) -> None:
    raised = pytest.raises(LockedError, match="another run on this machine is writing there")
    with open_run(place.url), raised, open_run(place.url):
        pass


def test_a_second_run_elsewhere_is_refused_while_the_first_renews(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW", -1.0)
    first = Lease(place, "first")
    first.acquire(print)
    heard: list[str] = []

    class Watched(Lease):
        def _read(self) -> dict[str, object] | None:
            found = Lease._read(self)
            first.renew()
            return found

    with pytest.raises(LockedError, match=r"another run is writing there \(on .*, process \d+\): .*--out"):
        Watched(place, "second").acquire(heard.append)
    assert "is held by a run on" in heard[0]


def test_a_lease_that_is_not_renewed_is_taken_and_its_owner_stops(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lease(place, "first"), Lease(place, "second")
    first.acquire(print)
    second.acquire(lambda text: None)
    monkeypatch.setattr(lease, "RENEW", -1.0)
    with pytest.raises(LockedError, match="from this one and has resumed it: this one ends here"):
        first.renew()
    first.release()
    assert list(names(place)) == [lease.NAME]
    second.release()
    assert not list(names(place))


def test_the_lease_is_renewed_while_the_journal_is_read_and_the_files_are_sent(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may take long, and the uploader does not work then."""
    monkeypatch.setattr(lease, "RENEW", 0.01)
    monkeypatch.setattr(lease, "BEAT", 0.01)
    waited = []

    def renewed(*args: object) -> None:
        seen = place.read(lease.NAME)
        until(lambda: place.read(lease.NAME) != seen)
        waited.append(args)

    read, upload = Chain.read, StoreFolder.upload
    monkeypatch.setattr(Chain, "read", lambda self: [renewed(), read(self)][1])
    monkeypatch.setattr(StoreFolder, "upload", lambda *args: [renewed(), upload(*args)][1])
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        (opened.folder / "report.html").touch()
    assert len(waited) == 2
    assert sorted(names(place)) == ["journal/000000000000000.jsonl", "report.html"], (
        "the lease is deleted, not rewritten"
    )


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


def test_files_of_a_run_that_was_deleted_in_the_store_are_not_those_of_the_next(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        (opened.folder / "samples").mkdir()
        (opened.folder / "samples" / "old.parquet").write_bytes(b"old")
    place.delete(names(place))
    with open_run(place.url) as opened:
        write(opened.folder, SECOND)
    assert list(names(place)) == ["journal/000000000000000.jsonl"]


def test_the_lease_of_a_process_of_this_machine_that_has_ended_is_taken_at_once(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "GONE", 1e9)
    Lease(place, "first").acquire(print)
    held = json.loads(place.read(lease.NAME) or b"")
    place.write(lease.NAME, json.dumps({**held, "started": "another start"}).encode())
    Lease(place, "second").acquire(print)
    assert json.loads(place.read(lease.NAME) or b"")["owner"] == "second"


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


def test_the_journal_in_the_store_replaces_another_one_in_the_local_copy(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
    held = log_of(place)
    (mirror_of(place.url) / FILE_NAME).write_bytes(b'{"record":"other"}\n')
    notes: list[str] = []
    with open_run(place.url, notes.append) as opened:
        assert (opened.folder / FILE_NAME).read_bytes() == held
        assert (opened.folder / "journal.superseded.jsonl").read_bytes() == b'{"record":"other"}\n'
    assert "put aside as journal.superseded.jsonl" in notes[0] and log_of(place) == held


def test_a_run_that_was_deleted_in_the_store_is_not_brought_back(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
    place.delete(list(names(place)))
    with open_run(place.url) as opened:
        assert not (opened.folder / FILE_NAME).read_bytes()


def test_a_torn_line_of_the_mirror_is_not_sent(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
    whole = log_of(place)
    with (mirror_of(place.url) / FILE_NAME).open("ab") as file:
        file.write(b'{"record":"sco')
    with open_run(place.url):
        pass
    assert log_of(place) == whole


def test_many_segments_become_one_object(place: StoreFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "SEGMENTS", 3)
    with open_run(place.url) as opened:
        journal = Journal(opened.folder)
        for i in range(1, 9):
            journal.header(FIRST)
            until(lambda i=i: log_of(place).count(b"\n") == i)  # type: ignore[misc]
        journal.close()
        written = (opened.folder / FILE_NAME).read_bytes()
    assert log_of(place) == written and len(list(names(place))) < 8


def test_a_folder_that_was_copied_to_the_store_is_a_run_there(place: StoreFolder, tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    place.upload(tmp_path / FILE_NAME, FILE_NAME)
    with run_folder(place.url) as folder:
        assert (folder / FILE_NAME).read_bytes() == (tmp_path / FILE_NAME).read_bytes()
    with open_run(place.url) as opened:
        write(opened.folder, SECOND)
    assert log_of(place).startswith((tmp_path / FILE_NAME).read_bytes()) and log_of(place).count(b"\n") == 2


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_copied_folder_whose_upload_was_interrupted_loses_nothing(
    place: StoreFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    write(tmp_path, *[FIRST, SECOND] * 3)
    whole = (tmp_path / FILE_NAME).read_bytes()
    place.write(FILE_NAME, whole)
    Chain(place, "dead").append(b"".join(whole.splitlines(keepends=True)[:cut]))
    with run_folder(place.url) as folder:
        assert (folder / FILE_NAME).read_bytes() == whole
    with open_run(place.url) as opened:
        assert (opened.folder / FILE_NAME).read_bytes() == whole
        write(opened.folder, FIRST)
    assert log_of(place).startswith(whole) and len(log_of(place)) > len(whole)


@pytest.mark.parametrize("name", ["{victim}", "a/{victim}", "a/../../../../../../../../../..{victim}", "./{victim}"])
def test_objects_of_a_strangers_run_are_not_written_outside_its_copy(
    place: StoreFolder, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    place.write(FILE_NAME, b'{"record":"run"}\n')
    place.fs.store[f"{place.root}/{name.format(victim=victim)}"] = place.fs.open(f"{place.root}/{FILE_NAME}")
    with run_folder(place.url) as folder:
        assert [path.name for path in folder.iterdir()] == [FILE_NAME]
    assert victim.read_text() == "mine"


def test_a_store_that_looks_before_it_writes_is_refused(tmp_path: Path) -> None:
    raised = pytest.raises(RemoteError, match="cannot create exclusively .*use s3:// or gs://, or --out with a folder")
    with raised, open_run(f"file://{tmp_path}/run".replace("///", "//x/")):
        pass


def test_a_reader_sees_the_run_and_uploads_only_on_request(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        (opened.folder / "tables").write_text("1")
    for keep in (False, True):
        with run_folder(place.url, write=keep) as folder:
            assert (folder / FILE_NAME).read_bytes() == log_of(place) and (folder / "tables").read_text() == "1"
            (folder / "report.md").write_text("report")
        assert (place.read("report.md") == b"report") == keep
    place.write("tables", b"2")
    with run_folder(place.url) as again:
        assert again == folder and (again / "tables").read_text() == "2"


def test_a_run_that_is_followed_is_not_fetched_whole_at_each_look(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    read_many = StoreFolder.read_many

    def noted(self: StoreFolder, names: list[str]) -> dict[str, bytes | None]:
        fetched.extend(names)
        return read_many(self, names)

    def look() -> bytes:
        fetched.clear()
        with run_folder(place.url) as folder:
            return (folder / FILE_NAME).read_bytes()

    monkeypatch.setattr(StoreFolder, "read_many", noted)
    writer = Chain(place, "writer")
    for line in (b"a\n", b"b\n"):
        writer.append(line)
    assert [look(), look()] == [b"a\nb\n"] * 2 and len(fetched) == 2
    assert look() == b"a\nb\n" and not fetched
    writer.append(b"c\n")
    assert look() == b"a\nb\nc\n" and fetched == ["journal/000000000000004.jsonl"]
    writer.compact(b"a\nb\nc\n")
    assert look() == b"a\nb\nc\n" and fetched == ["journal/000000000000000-000000000000006.jsonl"]
    place.delete(names(place))
    Chain(place, "another").append(b"z\n")
    assert look() == b"z\n", "what was kept is not that of another run"


def test_the_index_of_runs_is_written_in_their_parent_folder() -> None:
    place = memory_place()
    for name in ("a", "b"):
        with open_run(f"{place.url}/{name}") as opened:
            write(opened.folder, FIRST)
    runs = [f"{place.url}/a", f"{place.url}/b/"]
    assert common_place(runs) == place.url
    with index_of(runs, place.url) as (folders, folder):
        assert [f.parent for f in folders] == [folder, folder]
        for name in ("index.html", "index.md"):
            (folder / name).write_text(name)
    assert place.read("index.md") == b"index.md"


@pytest.mark.parametrize("runs", [["s3://a/x", "s3://b/x"], ["s3://a/x", "gs://a/x"], ["s3://a/x", "runs/x"]])
def test_runs_of_other_stores_have_no_index(runs: list[str]) -> None:
    with pytest.raises(ValueError, match="their index needs one bucket, or one disk"):
        common_place(runs)


def test_a_folder_that_cannot_be_written_is_refused_before_preparation(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is not a folder: give another --out"), open_run(f"{tmp_path}/file/run"):
        pass
    with (
        pytest.raises(ValueError, match=r"/proc/run: cannot write in /proc \(.*give another --out"),
        open_run("/proc/run"),
    ):
        pass
