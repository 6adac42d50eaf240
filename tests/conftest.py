"""Every test gets a cache folder of its own, so that no score of one can answer for another."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
