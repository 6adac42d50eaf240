"""Proves that exported models can be read by whoever can read their other files."""

from pathlib import Path

import pytest
import torch
from tiny_language import write_tiny_llama
from tiny_tower import tower, write_tower
from transformers import AutoModelForCausalLM

from pipeline.export.policy import write_image_tower, write_language_model
from tasks.language.causal import build


@pytest.mark.parametrize("kind", ["tower", "language"])
def test_weights_have_the_mode_of_the_configuration_beside_them(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if kind == "tower":
        write_image_tower(out, tower(write_tower(tmp_path / "base")))
    else:
        base = write_tiny_llama(tmp_path / "base")
        state = AutoModelForCausalLM.from_pretrained(base).state_dict()
        write_language_model(out, build(str(base), state, torch.device("cpu"), torch.float32, {}))
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode
