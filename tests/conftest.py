"""Every test gets a cache folder of its own, so that no score of one can answer for another."""

import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start: a shell has those in its background ignore it, for good."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
