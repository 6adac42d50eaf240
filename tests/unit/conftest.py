"""Fixtures of the unit tests."""

from pathlib import Path

import pytest
from toy_run import build_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run; tests only read it, but may write the report's two files."""
    return build_run().write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the inputs of a small PPO, to be read: a base model, prompts and rewards."""
    from small_ppo import write_ground  # transformers: not for other tests

    return write_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def after_sft(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder, to be read, of a small PPO whose SFT model is trained and whose rewards are measured."""
    from small_ppo import begin

    return begin(tmp_path_factory.mktemp("after_sft"), ground)
