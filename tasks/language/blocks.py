"""The residual blocks of language models, read from the module tree: one stack, or an encoder and a decoder."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tasks.base import LayerMap
from tasks.stacks import find_stacks

#: Stacks of an encoder-decoder that are scaled; the rest of the model is outside the blocks.
Scaled = Literal["decoder", "encoder", "both"]


@dataclass(frozen=True, slots=True)
class _Stack:
    """The blocks of a model, or of its encoder or decoder.

    Attributes:
        prefix: their list's name in the module.
        blocks: in order of depth.
    """

    prefix: str
    blocks: Sequence[nn.Module]


def layer_map(module: nn.Module) -> LayerMap:
    """Number the residual blocks: the members of the list of modules with the most parameters.

    The members are all of one class, or all of layer classes of transformers, as the attention and state-space layers
    of a hybrid model are.

    Raises:
        ValueError: if there is no list, its members are of other classes, or another tower has blocks too.
    """
    stack = _stack(module, module)
    _check_alone(module, [stack])
    return _numbered(module, [stack])


def encoder_decoder_map(module: PreTrainedModel, scaled: Scaled) -> LayerMap:
    """Number the residual blocks of the scaled stacks of an encoder-decoder.

    The other stack is outside the blocks. If both are scaled, each has depths from 0 to 1 of its own. Stacks of
    different lengths then share a finer numbering, in which some numbers have no parameters.

    Raises:
        ValueError: see `layer_map`, for the encoder and the decoder.
    """
    parts: Any = module  # get_decoder has no types
    stacks = {"encoder": _stack(module, parts.get_encoder()), "decoder": _stack(module, parts.get_decoder())}
    _check_alone(module, stacks.values())
    return _numbered(module, [stack for name, stack in stacks.items() if scaled in (name, "both")])


def _stack(module: nn.Module, part: nn.Module) -> _Stack:
    """Find the blocks of a part of a module, which may be the module itself."""
    kind = type(part).__name__
    lists = [m for m in part.modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        raise ValueError(f"{kind}: has no nn.ModuleList that could be its residual blocks")
    blocks = max(lists, key=lambda found: sum(p.numel() for p in found.parameters()))
    prefix = next(name for name, m in module.named_modules() if m is blocks)
    kinds = sorted({type(block).__name__ for block in blocks})
    if len(kinds) > 1 and not all(isinstance(block, GradientCheckpointingLayer) for block in blocks):
        raise ValueError(
            f"{kind}: {prefix} holds blocks of several classes ({', '.join(kinds)}); depth is defined for blocks of "
            "one class"
        )
    return _Stack(prefix, list(blocks))


def _numbered(module: nn.Module, stacks: Sequence[_Stack]) -> LayerMap:
    names = _names(module)
    last = lcm(*(max(1, len(stack.blocks) - 1) for stack in stacks))
    found: dict[str, set[int]] = defaultdict(set)
    for stack in stacks:
        step = last // max(1, len(stack.blocks) - 1)
        for index, block in enumerate(stack.blocks):
            for parameter in block.parameters():
                found[names[id(parameter)]].add(index * step)
    # A weight that several blocks share, as in Zamba, has no depth.
    alone = {name: min(numbers) for name, numbers in found.items() if len(numbers) == 1}
    return LayerMap(alone, last + 1 if any(len(stack.blocks) > 1 for stack in stacks) else 1)


def _check_alone(module: nn.Module, stacks: Iterable[_Stack]) -> None:
    names = _names(module)
    known = {names[id(p)] for stack in stacks for block in stack.blocks for p in block.parameters()}
    others = [stack for stack in find_stacks(names.values()) if stack.attention and stack.names[0] not in known]
    if others:
        raise ValueError(
            f"{type(module).__name__}: has blocks in {' and '.join(stack.prefix for stack in stacks)} and in "
            f"{others[0].names[0]}; depth is defined for one of them: give the language model alone, without its other "
            "tower"
        )


def _names(module: nn.Module) -> Mapping[int, str]:
    return {id(p): name for name, p in module.named_parameters()}
