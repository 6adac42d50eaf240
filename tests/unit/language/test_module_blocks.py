"""Proves that a language model's blocks are the list of modules with most parameters, and one tower has them."""

import pytest
from torch import nn

from tasks.language.blocks import layer_map


def test_blocks_are_the_list_with_most_parameters() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))

    model = nn.Module()
    with pytest.raises(ValueError, match="Module: has no nn.ModuleList that could be its residual blocks"):
        layer_map(model)
    model.heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.layers = nn.ModuleList([Block(), Block(), Block()])
    found = layer_map(model)
    assert found.num_blocks == 3 and {found.depth(f"layers.{i}.experts.3.weight") for i in range(3)} == {0, 0.5, 1}
    assert found.depth("heads.0.weight") is None
    model.layers.append(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"layers holds blocks of several classes \(Block, Linear\)"):
        layer_map(model)


def test_a_model_with_a_second_tower_is_refused() -> None:
    def tower(depth: int) -> nn.ModuleList:
        return nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 8) for _ in range(depth))

    model = nn.Module()
    model.layers = tower(3)
    assert layer_map(model).num_blocks == 3
    model.vision = nn.ModuleDict({"layers": tower(2)})
    with pytest.raises(ValueError, match=r"Module: has blocks in layers and in vision.layers.0.self_attn"):
        layer_map(model)
