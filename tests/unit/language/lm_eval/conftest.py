"""Fixtures of the tests of lm-eval's tasks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lm_eval_scores import COUNT
from lm_eval_tasks import write_tasks
from safetensors.torch import load_file, save_file
from tiny_language import write_tiny_llama

from tasks.language.causal import CausalBackbone, build


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with weights so large that its answers depend on the question."""
    folder = write_tiny_llama(tmp_path_factory.mktemp("llama"), layers=2, hidden=16)
    file = folder / "model.safetensors"
    state = {name: tensor if "norm" in name else 5 * tensor for name, tensor in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def backbone(model: Path) -> CausalBackbone:
    return build(str(model), load_file(model / "model.safetensors"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of tasks, to be read."""
    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield write_tasks(tmp_path_factory.mktemp("tasks"), COUNT)
    patch.undo()
