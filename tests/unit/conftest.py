"""What unit tests share."""

from pathlib import Path

import pytest
from toy_run import build_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; read only, except for the report's own two files."""
    return build_run().write(tmp_path_factory.mktemp("run"))
