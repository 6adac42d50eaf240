"""Proves that the garbage collector rests while libraries are imported, and only then."""

import gc

import pytest

from pipeline.quick_imports import quick_imports


def test_the_collector_rests_within_and_works_afterwards() -> None:
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
