"""Modules with given parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def module_of(state: Mapping[str, Tensor]) -> nn.Module:
    """A tree of modules whose parameters have the names and shapes of `state`."""
    root = nn.Module()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        node = root
        for part in path:
            if part not in node._modules:
                node.add_module(part, nn.Module())
            node = node.get_submodule(part)
        node.register_parameter(leaf, nn.Parameter(torch.empty_like(tensor)))
    return root


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}
