"""Proves that an adapter of another model than the base is refused, wherever copies of the base are."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_language import write_adapter, write_tiny_llama

from pipeline.loading.expert_checks import check_distance, check_policies
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.task_vectors import NamedTensors
from pipeline.spec.run import RunSpec
from tasks.language.causal import CausalBackbone, build


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("base"), layers=2)


@pytest.fixture(scope="module")
def backbone(base: Path) -> CausalBackbone:
    return build(str(base), load_file(base / "model.safetensors"), torch.device("cpu"), torch.float32)


def check(base: str, model: Path, adapter: Path, backbone: CausalBackbone) -> None:
    spec = RunSpec.model_validate(
        {
            "name": "adapters",
            "backbone": {"family": "causal", "model": str(model)},
            "base": base,
            "experts": {"a": str(adapter)},
            "tasks": {"a": {"source": "lm_eval/a"}},
            "arms": {"sum": {"merge": "sum"}},
        }
    )
    check_policies(SpecSources(spec, spec.experts), backbone)


def test_an_adapter_of_other_weights_is_refused(base: Path, backbone: CausalBackbone, tmp_path: Path) -> None:
    other = write_tiny_llama(tmp_path / "other", layers=2, seed=5)
    adapter = write_adapter(tmp_path / "adapter", other, seed=1)
    message = (
        rf"experts\.a: its adapter was trained on {other}, whose model\.\S+ differs from that of the base {base}: an "
        rf"adapter changes one model; give base: {other}, or an adapter of this base"
    )
    with pytest.raises(ValueError, match=message):
        check(str(base), base, adapter, backbone)


def test_a_copy_of_the_base_is_the_base(
    base: Path, backbone: CausalBackbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one in half the precision: adapters are often trained so."""
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    adapter = write_adapter(tmp_path / "adapter", copy, seed=1)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        state = {name: tensor.to(dtype) for name, tensor in load_file(base / "model.safetensors").items()}
        save_file(state, copy / "model.safetensors", {"format": "pt"})
        check(str(base), base, adapter, backbone)
    assert not caplog.records


def test_a_base_that_cannot_be_read_any_more_is_only_a_warning(
    base: Path, backbone: CausalBackbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    adapter = write_adapter(tmp_path / "adapter", copy, seed=1)
    (copy / "model.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        check(str(base), base, adapter, backbone)
    assert f"experts.a: its adapter was trained on {copy}, but the base is {base}" in caplog.text


def test_a_base_of_zeros_is_refused() -> None:
    delta = NamedTensors("experts.a: a.safetensors", {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="base: every weight is 0; expected a pre-trained model"):
        check_distance(delta, 0.0)
