"""Proves that the embedded LoRA adapters are found by name, and change every matrix of every block of their base."""

import json
from pathlib import Path

import pytest
import torch
from tiny_tower import PREPROCESSING

from pipeline.checkpoints.files import locate
from pipeline.loading.experts import load_checkpoints
from pipeline.merging.low_rank import LowRankDelta
from pipeline.spec.load import load_spec
from tasks.embedded.bases.catalogue import place
from tasks.embedded.bases.dinov2 import CONFIG

SPEC = Path(__file__).parents[3] / "examples" / "bases" / "dinov2.yaml"
MATRICES = (*(f"attention.{part}_proj" for part in "qkvo"), "mlp.fc1", "mlp.fc2")


def test_an_adapter_is_found_by_its_name() -> None:
    found = locate("embedded/dinov2-small-letters")
    assert [path.name for path in found.weights] == ["adapter_model.safetensors"]
    assert found.adapter_config and found.adapter_config.parent == found.folder
    with pytest.raises(ValueError, match=r"embedded/dinov2-small-leters: .* did you mean 'dinov2-small-letters'"):
        locate("embedded/dinov2-small-leters")


def test_the_examples_adapters_fit_their_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base is as large as the real one, with other weights."""
    from transformers import Dinov2Config, Dinov2Model

    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path))
    with torch.device("meta"):
        model = Dinov2Model(Dinov2Config(**{**CONFIG, "use_mask_token": False}))
    ones = {name: torch.ones_like(tensor, device="cpu") for name, tensor in model.state_dict().items()}
    model.save_pretrained(place("dinov2-small"), state_dict=ones)
    (place("dinov2-small") / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    spec = load_spec(SPEC)
    assert len(spec.experts) == 8 and set(spec.experts.values()) == {
        f"embedded/dinov2-small-{task}" for task in spec.tasks
    }
    expected = {f"encoder.layer.{block}.{name}.weight" for block in range(12) for name in MATRICES}
    for expert in load_checkpoints(spec, torch.device("cpu"))[1]:
        assert isinstance(expert.delta, LowRankDelta)
        assert set(expert.delta.factors) == expected
        assert all(expert.delta[name].any() for name in expected)
