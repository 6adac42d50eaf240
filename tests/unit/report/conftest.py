"""Fixtures of the tests of reports."""

from pathlib import Path

import pytest
from soup_run import build_soups


@pytest.fixture(scope="session")
def soups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of two rewards; tests only read it, but may write the report's two files."""
    return build_soups(draws=2).write(tmp_path_factory.mktemp("soups"))
