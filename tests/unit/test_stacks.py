"""Proves that stacks of blocks are found in names, and that stages, sublayers and experts are distinguished."""

import re

import pytest
from block_names import read

from tasks.stacks import find_stacks

NAMES = read()
BLOCK = ("attn.qkv", "attn.proj", "norm1", "norm2", "mlp.up", "mlp.down")


def block(prefix: str, parts: tuple[str, ...] = BLOCK) -> list[str]:
    return [f"{prefix}{part}.weight" for part in parts]


def found(names: list[str]) -> list[tuple[str, int, bool]]:
    return [(stack.pattern, stack.blocks, stack.attention) for stack in find_stacks(names)]


def test_heads_stems_and_single_modules_are_no_stacks() -> None:
    names = [*block("only.0."), "head.0.weight", "head.2.weight", "norm1.weight", "norm2.weight"]
    convolutions = [f"stem.{i}.{part}" for i in (0, 1) for part in ("conv.w", "bn.w", "bn.b", "bn.mean", "bn.var")]
    assert found([*names, *convolutions]) == []


def test_a_number_in_the_name_of_a_tower_is_no_block() -> None:
    assert found([*block("dinov2.layer.0."), *block("dinov2.layer.1.")]) == [(r"dinov2\.layer\.(\d+)\.", 2, True)]


def test_blocks_of_stages_are_counted_and_those_of_experts_are_not() -> None:
    staged = [name for stage, depth in enumerate((1, 3)) for i in range(depth) for name in block(f"s.{stage}.b.{i}.")]
    assert found([*staged, "s.0.down.weight"]) == [(r"s\.(\d+)\.b\.(\d+)\.", 4, True)]
    experts = [name for layer in (0, 1) for e in range(4) for name in block(f"l.{layer}.experts.{e}.")]
    attention = [f"l.{layer}.attn.{part}" for layer in (0, 1) for part in "abcdefg"]
    assert found([*experts, *attention]) == [(r"l\.(\d+)\.", 2, True)]


def test_a_pattern_finds_the_blocks_and_not_the_stem_that_has_a_number_too() -> None:
    names = NAMES["torchvision: MobileNet V2"][1]
    ((pattern, blocks, attention),) = found(names)
    assert (blocks, attention) == (17, False)
    matched = {match[1] for name in names if (match := re.match(pattern, name))}
    assert matched == {str(i) for i in range(1, 18)}


@pytest.mark.parametrize("family", ["transformers: T5", "transformers: Mixtral, saved", "timm: Swin"])
def test_every_tensor_of_a_stack_is_in_it(family: str) -> None:
    names = NAMES[family][1]
    for stack in find_stacks(names):
        assert set(stack.names) == {name for name in names if re.match(stack.pattern, name)}


def test_parts_of_a_block_are_no_blocks() -> None:
    names = [name for i in (0, 1, 2) for j in (1, 2) for name in block(f"blocks.{i}.stack.conv{j}.")]
    assert found(names) == [(r"blocks\.(\d+)\.", 3, True)]
