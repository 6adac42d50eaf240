"""Proves that the garbage collector rests while libraries are imported, and only then; and that runs are freed."""

import gc
import sys
import weakref

import pytest

from pipeline.quick_imports import quick_imports


class Model:
    """An object in a cycle, as a run's model is."""

    def __init__(self) -> None:
        self.itself = self


def test_the_collector_rests_within_and_works_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    try:
        with pytest.raises(ImportError), quick_imports():
            assert not gc.isenabled()
            with quick_imports():
                pass
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() and gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_what_a_run_has_left_is_freed_after_the_imports_of_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    left = weakref.ref(Model())
    try:
        with quick_imports():
            assert not gc.isenabled()
        gc.collect()
        assert left() is None and gc.isenabled()
    finally:
        gc.unfreeze()
