"""Proves that a soup of LoRA policies is equation 4 on their products B A; interpolating A and B separately differs."""

from pathlib import Path

import pytest
import torch
from causal_models import low_rank
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from tiny_language import write_adapter, write_tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.merging.low_rank import LowRank, LowRankDelta, combine_low_rank
from pipeline.merging.methods import METHODS
from tasks.language.causal import build

NAME = "model.layers.2.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_llama(tmp_path_factory.mktemp("soup") / "base")
    for seed, name in enumerate(("one", "two")):
        write_adapter(folder.parent / name, folder, seed, scale=0.1)
    return folder


@pytest.fixture(scope="module")
def policies(folder: Path) -> list[LowRankDelta]:
    backbone = build(str(folder), read_checkpoint(str(folder)).state, torch.device("cpu"), torch.float32)
    return [low_rank(backbone, folder.parent / name) for name in ("one", "two")]


def soup(policies: list[LowRankDelta], share: float) -> LowRankDelta:
    """Lambda tau_1 + (1 - lambda) tau_2, as a run computes it."""
    found = combine_low_rank(METHODS["weighted"], policies, (share, 1 - share), {})
    assert found is not None
    return found


def interpolated_factors(one: LowRank, two: LowRank, share: float) -> Tensor:
    """(lambda B_1 + (1 - lambda) B_2) (lambda A_1 + (1 - lambda) A_2)."""
    return (share * one.b + (1 - share) * two.b) @ (share * one.a + (1 - share) * two.a)


@given(share=st.floats(0, 1))
def test_apart_misses_by_the_product_of_the_differences(policies: list[LowRankDelta], share: float) -> None:
    one, two = (policy.factors[NAME] for policy in policies)
    right = soup(policies, share)[NAME]
    torch.testing.assert_close(right, share * one.dense() + (1 - share) * two.dense(), rtol=0, atol=1e-6)
    missed = share * (1 - share) * (one.b - two.b) @ (one.a - two.a)
    torch.testing.assert_close(right - interpolated_factors(one, two, share), missed, rtol=0, atol=1e-6)


def test_what_is_missed_is_of_the_size_of_the_soup_itself(policies: list[LowRankDelta]) -> None:
    one, two = (policy.factors[NAME] for policy in policies)
    right = soup(policies, 0.5)[NAME]
    assert (right - interpolated_factors(one, two, 0.5)).norm() / right.norm() > 0.5
    for share, end in ((1.0, one), (0.0, two)):
        assert torch.equal(soup(policies, share)[NAME], end.dense())
        torch.testing.assert_close(interpolated_factors(one, two, share), end.dense())


def test_pefts_concatenation_is_equation_4_and_its_linear_combination_is_not(
    folder: Path, policies: list[LowRankDelta]
) -> None:
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder), folder.parent / "one", adapter_name="one"
    )
    model.load_adapter(folder.parent / "two", adapter_name="two")
    layer = model.get_submodule(f"base_model.model.{NAME.removesuffix('.weight')}")
    right, found = soup(policies, 0.3)[NAME], {}
    for kind in ("cat", "linear"):
        model.add_weighted_adapter(["one", "two"], [0.3, 0.7], kind, combination_type=kind)
        found[kind] = layer.get_delta_weight(kind).detach()
    torch.testing.assert_close(found["cat"], right, rtol=0, atol=1e-6)
    assert (found["linear"] - right).norm() / right.norm() > 0.3
