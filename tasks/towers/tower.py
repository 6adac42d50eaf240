"""An image tower of a library: its module, how features are read of its output, and how checkpoints are read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tasks.base import LayerMap
from tasks.lora import WeightPart
from tasks.stacks import find_stacks


@dataclass(frozen=True)
class Tower:
    """A tower with the base's weights, on its device and in its dtype.

    Attributes:
        library: that computes it: transformers or timm.
        module: called with normalised images (B, C, H, W).
        features: of the module's output, (B, D).
        select: tensors of the module's parameters from a checkpoint: see `tasks.base.Backbone.select`.
        weight_parts: see `tasks.lora.TakesAdapters.weight_parts`.
        preprocess: the fields of `Preprocess` that the model states.
        identity: content of its configuration.
        arguments: of the module besides the images.
        companions: files of the model's folder that an edited tower needs too: its preprocessing.
    """

    library: str
    module: nn.Module
    features: Callable[[Any], Tensor]
    select: Callable[[Mapping[str, Tensor], str], dict[str, Tensor]]
    weight_parts: Callable[[Iterable[str], str], Mapping[str, WeightPart]]
    preprocess: Mapping[str, Any]
    identity: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    companions: Sequence[Path] = ()


def layer_map(names: Iterable[str]) -> LayerMap:
    """Number the residual blocks: the largest stack in the names of a tower's parameters, over all its stages.

    Raises:
        ValueError: if there is none, or a second tower with attention.

    Example:
        >>> parts = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
        >>> layer_map([f"blocks.{i}.{part}.weight" for i in (0, 1) for part in parts]).num_blocks
        2
    """
    names = list(names)
    stacks = find_stacks(names)
    if not stacks:
        raise ValueError(f"no two numbered blocks with the same tensors among {len(names)} parameters: {names[:3]}")
    first, *others = stacks
    if second := [stack for stack in others if stack.attention]:
        raise ValueError(
            f"has blocks in {first.names[0]} and in {second[0].names[0]}; depth is defined for one of them: give the "
            "image tower alone"
        )
    return LayerMap.from_pattern(names, first.pattern, gaps=True)
