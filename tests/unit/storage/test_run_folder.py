"""Proves that a run in a store is worked in a local copy: uploaded, resumed, and repaired at its next start."""

from pathlib import Path

import pytest
from faulty_place import names
from stored_run import FIRST, SECOND, log_of, until, write

from pipeline.records.journal import FILE_NAME, Journal
from pipeline.storage import uploader
from pipeline.storage.run_folder import mirror_of, open_run, run_folder
from pipeline.storage.segments import Chain
from tasks.files.object_store import StoreFolder


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


def test_files_of_a_run_that_was_deleted_in_the_store_are_not_those_of_the_next(place: StoreFolder) -> None:
    with open_run(place.url) as opened:
        write(opened.folder, FIRST)
        (opened.folder / "samples").mkdir()
        (opened.folder / "samples" / "old.parquet").write_bytes(b"old")
    place.delete(names(place))
    with open_run(place.url) as opened:
        write(opened.folder, SECOND)
    assert list(names(place)) == ["journal/000000000000000.jsonl"]


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


def test_a_folder_that_cannot_be_written_is_refused_before_preparation(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--out: must name a folder, got no text"), open_run(""):
        pass
    with pytest.raises(ValueError, match="file is not a folder: give another --out"), open_run(f"{tmp_path}/file/run"):
        pass
    with (
        pytest.raises(ValueError, match=r"/proc/run: cannot write in /proc \(.*give another --out"),
        open_run("/proc/run"),
    ):
        pass
