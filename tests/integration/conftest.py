"""Fixtures of the integration tests: two small experts, and data that is decoded once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_run import Lines, write_experts

from pipeline.cluster.ray_private import reload_token

if TYPE_CHECKING:
    from chaos.small_run import Survived


@pytest.fixture(scope="session")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_experts(tmp_path_factory.mktemp("experts"))


@pytest.fixture(scope="session")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder that keeps decoded images and text heads for all tests."""
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture
def lines(
    tmp_path: Path, experts: dict[str, Path], decoded: Path, monkeypatch: pytest.MonkeyPatch, _own_cache: None
) -> Lines:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
    return Lines(tmp_path, experts)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, experts: dict[str, Path], decoded: Path) -> Path:
    """Return the folder of the small run, executed without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
        lines = Lines(folder, experts)
        status, output = lines.run(lines.spec(), folder / "run")
    assert status == 0, output
    return folder / "run"


@pytest.fixture(scope="session")
def survived(tmp_path_factory: pytest.TempPathFactory) -> "Survived":
    """Return a run that survived one fault of each kind, in about two minutes."""
    from chaos.hosts import permitted
    from chaos.run import RunTooShortError
    from chaos.small_run import survive  # psutil and network namespaces: not for other tests

    if reason := permitted():
        pytest.skip(reason)

    def run(trials: int) -> "Survived":
        folder = tmp_path_factory.mktemp("chaos")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("LINES_SWEEP_CACHE", str(folder / "cache"))
            return survive(folder, trials)

    try:
        return run(trials=40)
    except RunTooShortError:  # while a worker loads on a busy machine, the other may score all of the rest
        return run(trials=120)


@pytest.fixture(autouse=True, scope="module")
def token_of_no_other_test() -> Iterator[None]:
    """Reset Ray's token, so that each file starts like a new process: Ray sets RAY_AUTH_MODE and keeps the token."""
    for name in [name for name in os.environ if name.startswith("RAY_AUTH")]:
        del os.environ[name]
    reload_token()
    yield
