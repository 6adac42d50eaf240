"""Fixtures of the tests of language models."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tasks.language.causal import CausalBackbone


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder, to be read, of a tiny Llama."""
    from tiny_language import write_tiny_llama  # transformers: not for other tests

    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def llama_backbone(llama: Path) -> "CausalBackbone":
    from causal_models import built

    return built(llama)
