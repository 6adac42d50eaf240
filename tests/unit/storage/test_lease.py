"""Proves that one run at a time works a folder of a store, and that a lease that is not renewed is taken."""

import json

import pytest
from faulty_place import names
from stored_run import FIRST, until, write

from pipeline.errors import LockedError
from pipeline.storage import lease
from pipeline.storage.lease import Lease
from pipeline.storage.run_folder import open_run
from pipeline.storage.segments import Chain
from tasks.files.object_store import StoreFolder


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


def test_the_lease_of_a_process_of_this_machine_that_has_ended_is_taken_at_once(
    place: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "GONE", 1e9)
    Lease(place, "first").acquire(print)
    held = json.loads(place.read(lease.NAME) or b"")
    place.write(lease.NAME, json.dumps({**held, "started": "another start"}).encode())
    Lease(place, "second").acquire(print)
    assert json.loads(place.read(lease.NAME) or b"")["owner"] == "second"
