"""Fixtures of the tests of rewards."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny_rewards import WRITERS, write_encoder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the folders, to be read, of an encoder and of a classifier of each kind."""
    root = tmp_path_factory.mktemp("rewards")
    encoder = write_encoder(root / "encoder")
    return {"encoder": encoder, **{name: write_it(root / name) for name, write_it in WRITERS.items()}}
