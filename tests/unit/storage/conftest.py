"""Fixtures of the tests of stores."""

import pytest
from faulty_place import memory_place

from pipeline.storage import lease, uploader
from tasks.files.object_store import StoreFolder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run send its lines, and look at another run's lease, every few milliseconds."""
    monkeypatch.setattr(uploader, "EVERY", 0.01)
    monkeypatch.setattr(lease, "LOOK", 0.01)
    monkeypatch.setattr(lease, "GONE", 0.1)


@pytest.fixture
def place(quick: None) -> StoreFolder:
    """Return an empty folder of a store, worked by a quick run."""
    return memory_place()
