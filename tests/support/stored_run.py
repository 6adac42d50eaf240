"""A run in a store of memory: lines of its journal, what the store holds of them, and a wait."""

import time
from collections.abc import Callable
from pathlib import Path

from pipeline.records.journal import Journal
from pipeline.storage.segments import Chain
from tasks.files.object_store import StoreFolder

FIRST, SECOND = {"spec": {"name": "x"}}, {"spec": {"name": "y"}}


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
