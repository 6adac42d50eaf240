"""What integration tests share: two small experts, and data that is decoded once."""

from pathlib import Path
from typing import Any

import pytest
from small_run import small_spec, write_experts, write_spec
from typer.testing import CliRunner

from pipeline.cli import app


class Lines:
    """The command `lines` in this process, on small experts, in a folder of its own."""

    def __init__(self, folder: Path, experts: dict[str, Path]) -> None:
        self.folder, self.experts = folder, experts

    def spec(self, **changes: Any) -> Path:
        return write_spec(self.folder, small_spec(self.experts, **changes))

    def __call__(self, *words: object) -> tuple[int, str]:
        """Exit status, and the output with its line breaks taken out."""
        found = CliRunner().invoke(app, [str(w) for w in words])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found.exit_code, " ".join(found.output.split())

    def run(self, spec: Path, out: Path) -> tuple[int, str]:
        """`lines run` without the score cache, so that every score is this run's own."""
        return self("run", spec, "--out", out, "--no-cache")


@pytest.fixture(scope="session")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_experts(tmp_path_factory.mktemp("experts"))


@pytest.fixture(scope="session")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that keeps decoded images and text heads from test to test."""
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture
def lines(
    tmp_path: Path, experts: dict[str, Path], decoded: Path, monkeypatch: pytest.MonkeyPatch, _own_cache: None
) -> Lines:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
    return Lines(tmp_path, experts)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, experts: dict[str, Path], decoded: Path) -> Path:
    """The folder of the small run, worked in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
        lines = Lines(folder, experts)
        status, output = lines.run(lines.spec(), folder / "run")
    assert status == 0, output
    return folder / "run"
