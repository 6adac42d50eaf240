"""Fixtures of the tests of trainings."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def little_garbage() -> Iterator[None]:
    """PPOTrainer collects garbage after every update; frozen objects of libraries are skipped, which saves time."""
    gc.freeze()
    yield
    gc.unfreeze()
