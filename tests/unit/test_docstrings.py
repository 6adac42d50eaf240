"""Proves that the examples in the docstrings of what plug-ins call run as they are written."""

import doctest
import importlib

import pytest

MODULES = (
    "tasks.base",
    "tasks.embedded",
    "tasks.language.rewards.loading",
    "tasks.registry",
    "tasks.stats",
    "tasks.vision.classification",
    "tasks.vision.images",
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0 and results.failed == 0
