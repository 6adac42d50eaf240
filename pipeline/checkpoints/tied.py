"""Tied tensors: names of a pickle that share one storage count once, as in a .safetensors file of one name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.lazy import Renamed, only
from tasks.tensors import region


@dataclass(frozen=True, slots=True)
class CountedOnce:
    """The models of a merge, in which every tensor has one name.

    Attributes:
        base: every tied tensor under one name.
        experts: the same tensors under the base's names.
        tied: other name in the base -> the name that stays.
        dropped: names that only experts have, for tensors that the base has under another name.
    """

    base: Checkpoint
    experts: list[Checkpoint]
    tied: dict[str, str]
    dropped: list[str]


def count_once(base: Checkpoint, experts: Sequence[Checkpoint]) -> CountedOnce:
    """Leave one name of every tensor, so that a merge gives the same bits from pickles and from .safetensors files.

    Tensors are tied if they are one region of memory: equal values are not enough. Of the names of a tied tensor in the
    base, the first that all experts have stays. An expert may hold any of these names, or further names tied to them.

    Raises:
        ValueError: if names that the base ties have different values in an expert; they are named.

    Example:
        >>> table = torch.ones(2)
        >>> base = Checkpoint("base.bin", {"wte": table, "head": table}, "")
        >>> expert = Checkpoint("expert.safetensors", {"wte": torch.zeros(2)}, "")
        >>> once = count_once(base, [expert])
        >>> list(once.base.state), once.tied
        (['wte'], {'head': 'wte'})
    """
    groups = [_ordered(names, experts) for names in tied_names(base.state)]
    tied = {other: first for first, *others in groups for other in others}
    state = only(base.state, [name for name in base.state if name not in tied])
    renamed, dropped = [], dict[str, None]()
    for expert in experts:
        names = _names(expert, base, groups)
        dropped |= dict.fromkeys(name for name in expert.state if name not in base.state and name not in names)
        renamed.append(replace(expert, state=Renamed.of(expert.state, names)))
    return CountedOnce(replace(base, state=state), renamed, tied, list(dropped))


def tied_names(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the names of each tensor that has several, in the file's order."""
    if not isinstance(state, dict):  # tensors of .safetensors are read one by one, each from its own place
        return []
    groups: dict[object, list[str]] = {}
    for name, tensor in state.items():
        if tensor.numel():
            groups.setdefault(region(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _ordered(names: Sequence[str], experts: Sequence[Checkpoint]) -> list[str]:
    """Put the name that stays first."""
    common = (name for name in names if all(name in expert.state for expert in experts))
    first = next(common, names[0])
    return [first, *(name for name in names if name != first)]


def _names(expert: Checkpoint, base: Checkpoint, groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the name that stays -> the expert's own name, of every tensor of an expert."""
    own = tied_names(expert.state)
    further = {n for names in own if any(n in base.state for n in names) for n in names if n not in base.state}
    names = {name: name for name in expert.state if name not in further}
    for group in groups:
        held = [name for name in group if names.pop(name, None)]
        _check_equal(expert, base, held, own)
        if held:
            names[group[0]] = held[0]
    return names


def _check_equal(expert: Checkpoint, base: Checkpoint, held: Sequence[str], own: Sequence[Sequence[str]]) -> None:
    """Check that names which the base ties have one value in an expert."""
    for other in held[1:]:
        if any(held[0] in names and other in names for names in own):
            continue
        if not torch.equal(expert.state[held[0]], expert.state[other]):
            raise ValueError(
                f"{expert.source}: {held[0]} and {other} differ, but are one tensor in {base.source}: tie them in the "
                "expert, or save the base with a copy of its own under each name, so that both are merged"
            )
