"""Fixtures of all tests: each test has its own cache folder, so that it never reads scores of another."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Seconds prove nothing on a busy machine.
settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")


def pytest_configure() -> None:
    """Let signals reach the programs that tests start, even under `nohup` or in the background of a shell."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Return the path of a run folder that does not exist yet."""
    return tmp_path / "run"
