"""Proves that headers and architectures without weights give the sizes of files and models."""

from pathlib import Path

import pytest
import torch
from small_soup import soup_spec, write_soup
from tiny_language import t5_config, write_adapter, write_tiny_seq2seq
from transformers import AutoModelForCausalLM

from pipeline.checkpoints.files import locate
from pipeline.loading.model import load_model
from pipeline.loading.spec_sources import SpecSources
from pipeline.sizing.model import measure_model, outline
from pipeline.spec.load import parse_spec


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soup(tmp_path_factory.mktemp("soup"))


def test_tied_weights_count_once(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    spec = parse_spec(soup_spec())
    size = measure_model(spec, SpecSources(spec, spec.experts))
    module = AutoModelForCausalLM.from_pretrained(files / "sft")
    assert size.shapes == {name: p.shape for name, p in module.named_parameters()}
    assert all(p.is_meta for p in size.backbone.module.parameters())
    assert size.base == (files / "sft" / "model.safetensors").stat().st_size - _header(files / "sft")


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_a_checkpoint_unties_count_twice(tmp_path: Path, tied: bool) -> None:
    write_tiny_seq2seq(tmp_path / "t5", t5_config(tied=tied))
    backbone = {"family": "seq2seq", "model": str(tmp_path / "t5")}
    spec = parse_spec(
        {
            "name": "t5",
            "backbone": backbone,
            "base": str(tmp_path / "t5"),
            "experts": {"a": str(tmp_path / "t5")},
            "tasks": {"a": "lm_eval/a"},
            "arms": {"sum": {"merge": "sum"}},
        }
    )
    size = measure_model(spec, SpecSources(spec, spec.experts))
    real = load_model(spec.backbone, locate(spec.base), torch.device("cpu")).backbone.module
    assert size.shapes == {name: p.shape for name, p in real.named_parameters()}


def test_an_adapter_has_the_elements_of_its_factors(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    write_adapter(files / "wide", files / "sft", seed=3, rank=8)
    spec = parse_spec(soup_spec(experts={"brief": "policies/brief", "open": "wide"}))
    sizes = measure_model(spec, SpecSources(spec, spec.experts)).experts
    narrow, wide = sizes["brief"].delta, sizes["open"].delta
    assert narrow is not None and wide is not None
    assert wide.numel == 2 * narrow.numel == sizes["open"].stored // 4


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_have_the_outline_of_their_tensors(tmp_path: Path, legacy: bool) -> None:
    state = {"a.weight": torch.zeros(3, 4, dtype=torch.float16), "b": torch.ones(2, dtype=torch.int64)}
    torch.save({"state_dict": state}, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    found = outline(locate(str(tmp_path / "x.pt")))
    assert {name: (t.shape, t.dtype, t.is_meta) for name, t in found.items()} == {
        name: (t.shape, t.dtype, True) for name, t in state.items()
    }


def _header(folder: Path) -> int:
    """Return the bytes before the tensors of a .safetensors file: the header's length, and the header."""
    return 8 + int.from_bytes((folder / "model.safetensors").open("rb").read(8), "little")
