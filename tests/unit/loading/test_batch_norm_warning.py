"""Proves that a run warns of statistics that it does not measure again."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.checkpoints.files import locate
from pipeline.loading.model import load_model
from pipeline.spec.sources import BackboneSpec
from tasks.base import LayerMap
from tasks.registry import BACKBONES


@pytest.mark.parametrize("normalised", [True, False])
def test_a_plug_in_with_batch_normalisation_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, normalised: bool
) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2) if normalised else nn.LayerNorm(2))
    backbone = SimpleNamespace(module=module, layer_map=LayerMap({}, 1), select=lambda state, source: dict(state))
    monkeypatch.setattr(type(BACKBONES), "__getitem__", lambda self, name: lambda *args: backbone)
    save_file(dict(module.named_parameters()), tmp_path / "base.safetensors")
    spec = BackboneSpec(family="plug-in", model="any")
    load_model(spec, locate(str(tmp_path / "base.safetensors")), torch.device("cpu"))
    assert ("has batch normalisation, whose statistics stay the base's" in caplog.text) == normalised
