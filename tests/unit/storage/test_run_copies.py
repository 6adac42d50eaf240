"""Proves that readers get a current copy of a run in a store, fetched in parts, and written nowhere else."""

from pathlib import Path

import pytest
from faulty_place import names
from stored_run import FIRST, log_of, write

from pipeline.cli.index import common_place, index_of
from pipeline.records.journal import FILE_NAME
from pipeline.storage.run_folder import open_run, run_folder
from pipeline.storage.segments import Chain
from tasks.files.object_store import StoreFolder


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


def test_the_index_of_runs_is_written_in_their_parent_folder(place: StoreFolder) -> None:
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
