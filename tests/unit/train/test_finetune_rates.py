"""Proves the learning rates of appendix C.8.3 by block and by step, also of parameters outside the blocks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parameters import resolve
from pipeline.train.finetune.methods import METHODS
from pipeline.train.finetune.rates import nearest_block, rate_at, rate_factors
from tasks.vision.clip.backbone import layer_map

VIT = ["class_embedding", "positional_embedding", "proj", "conv1.weight", "ln_pre.weight", "ln_post.bias"]
VIT += [f"transformer.resblocks.{i}.attn.in_proj_weight" for i in range(4)]
CONVNEXT = ["trunk.stem.0.weight", "trunk.stages.1.downsample.1.weight", "trunk.head.norm.weight", "head.proj.weight"]
CONVNEXT += [f"trunk.stages.{s}.blocks.{b}.conv_dw.weight" for s in range(2) for b in range(2)]
TIMM = ["trunk.cls_token", "trunk.pos_embed", "trunk.norm.weight", "trunk.patch_embed.proj.weight"]
TIMM += [f"trunk.blocks.{i}.attn.qkv.weight" for i in range(3)]


def block_rates(method: str, blocks: int, **params: float) -> tuple[float, ...]:
    return METHODS[method].rates(blocks, resolve(METHODS[method].parameters, params))


def test_rates_of_four_blocks() -> None:
    assert block_rates("full", 4) == (1, 1, 1, 1)
    assert block_rates("lora", 4) == (1, 1, 1, 1)
    assert block_rates("linear", 4) == (0, 1 / 3, 2 / 3, 1)
    assert block_rates("exponential", 4) == (0.125, 0.25, 0.5, 1)
    assert block_rates("exponential", 3, factor=0.1) == pytest.approx((0.01, 0.1, 1))
    assert block_rates("half_frozen", 4) == (0, 0, 1, 1)
    assert block_rates("last_block", 4) == (0, 0, 0, 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_rates_rise_with_depth_to_the_full_rate(method: str, blocks: int) -> None:
    rates = block_rates(method, blocks)
    assert len(rates) == blocks and list(rates) == sorted(rates) and rates[-1] == 1 and rates[0] >= 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (VIT, [0, 0, 3, 0, 0, 3, 0, 1, 2, 3]),
        (CONVNEXT, [0, 2, 3, 3, 0, 1, 2, 3]),
        (TIMM, [0, 0, 2, 0, 0, 1, 2]),
    ],
)
def test_what_is_outside_the_blocks_goes_with_the_nearest_one(names: list[str], expected: list[int]) -> None:
    blocks = layer_map(names)
    assert [nearest_block(name, blocks) for name in names] == expected
    rates = [float(b + 1) for b in range(blocks.num_blocks)]
    assert list(rate_factors(names, blocks, rates).values()) == [b + 1 for b in expected]


def test_the_schedule_in_closed_form() -> None:
    assert [rate_at(step, 10, 0.2) for step in range(4)] == pytest.approx(
        [0.5, 1.0, 1.0, 0.5 * (1 + math.cos(math.pi / 8))]
    )
    assert rate_at(0, 10, 0.0) == 1.0
    assert rate_at(9, 10, 0.0) == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


@given(total=st.integers(1, 500), warm_up=st.floats(0, 1, exclude_max=True))
def test_the_schedule_rises_to_one_and_then_falls(total: int, warm_up: float) -> None:
    rates = [rate_at(step, total, warm_up) for step in range(total)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == 1 or total == math.ceil(warm_up * total) == 0
