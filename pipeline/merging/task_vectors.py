"""Task vectors (an expert's weights minus the base's, by parameter name), and their sizes and norms."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.merging.low_rank import LowRankDelta, entry_of_sum
from pipeline.merging.parameter_pieces import l1
from pipeline.merging.scaling import LayerSizes
from pipeline.recipe import AUTO, canonical_number
from tasks.base import LayerMap
from tasks.tensors import first_names

#: Word for alpha -> order of the vector norm.
_ORDERS = {AUTO["l1"]: 1, AUTO["l2"]: 2}


@dataclass(frozen=True, slots=True)
class NamedTensors:
    """Tensors by parameter name, with their source for errors."""

    source: str
    tensors: Mapping[str, Tensor]


def task_vector(base: NamedTensors, expert: NamedTensors) -> dict[str, Tensor]:
    """Subtract `base` from `expert`, tensor by tensor, in float32 whatever their types.

    Raises:
        ValueError: if names or shapes differ; the file and the first names are given.

    Example:
        >>> base, expert = {"w": torch.tensor([1.0])}, {"w": torch.tensor([1.5])}
        >>> task_vector(NamedTensors("base.pt", base), NamedTensors("expert.pt", expert))
        {'w': tensor([0.5000])}
    """
    check_agree(base, expert)
    return {name: expert.tensors[name].float() - tensor.float() for name, tensor in base.tensors.items()}


def check_agree(base: NamedTensors, expert: NamedTensors) -> None:
    """Check that two models have the same names and shapes.

    Raises:
        ValueError: if they differ; the file and the first names are given.
    """
    missing = [name for name in base.tensors if name not in expert.tensors]
    extra = [name for name in expert.tensors if name not in base.tensors]
    shapes = [
        f"{name} {tuple(expert.tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in base.tensors.items()
        if name in expert.tensors and expert.tensors[name].shape != tensor.shape
    ]
    faults = [
        f"{kind}: {first_names(names)}"
        for kind, names in (("missing", missing), (f"not in {base.source}", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise ValueError(f"{expert.source}: does not match {base.source}: {'; '.join(faults)}")


def layer_sizes(layer_map: LayerMap, tensors: Mapping[str, Tensor]) -> LayerSizes:
    """Count the parameters of `tensors` outside the blocks and in each block."""
    outside, blocks = 0, [0] * layer_map.num_blocks
    for name, tensor in tensors.items():
        block = layer_map.blocks.get(name)
        if block is None:
            outside += tensor.numel()
        else:
            blocks[block] += tensor.numel()
    return LayerSizes(outside, tuple(blocks))


def group_norms(layer_map: LayerMap, tensors: Mapping[str, Tensor]) -> tuple[float, ...]:
    """Return the L2 norms outside the blocks and of each block, accumulated in float64; each entry is read once."""
    squares: list[list[float]] = [[] for _ in range(1 + layer_map.num_blocks)]
    for name, tensor in tensors.items():
        squares[layer_map.blocks.get(name, -1) + 1].append(norm([tensor]) ** 2)
    return tuple(math.sqrt(math.fsum(square)) for square in squares)


def resolve_alpha(word: str, used: Sequence[Mapping[str, Tensor]], combined: Mapping[str, Tensor]) -> float:
    """Compute equation 2: alpha = ||tau_sum|| / (N ||tau_MTL||), over all edited parameters.

    tau_sum is the plain sum of the N used experts' task vectors, whatever the method does to them. The text does not
    name the norm; the authors' code uses L1. Norms accumulate in float64, and the result is rounded to a recipe's seven
    digits: machines that add in another order agree, and a recipe with this number gives the same weights.

    Args:
        word: "auto" (L1) or "auto_l2".
        used: task vectors of the experts with a weight other than 0.
        combined: tau_MTL, with the same names.

    Raises:
        ValueError: if the word is unknown, no expert is used, or the combined vector has norm 0.
    """
    if word not in _ORDERS:
        raise ValueError(f"alpha: must be a number, {' or '.join(map(repr, _ORDERS))}, got {word!r}")
    if not used:
        raise ValueError(f"alpha: {word!r} needs at least one expert with a weight other than 0")
    order = _ORDERS[word]
    merged = norm(combined.values(), order)
    if merged == 0:
        raise ValueError(f"alpha: {word!r} is not defined (equation 2): the combined task vector is 0 everywhere")
    total = norm((_plain_sum(used, name) for name in combined), order)
    return float(canonical_number(total / (len(used) * merged)))


def _plain_sum(deltas: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    low = [delta for delta in deltas if isinstance(delta, LowRankDelta)]
    if len(low) == len(deltas):
        return entry_of_sum(low, name)
    total = deltas[0][name].clone()
    for delta in deltas[1:]:
        total += delta[name]
    return total


def norm(tensors: Iterable[Tensor], order: int = 2) -> float:
    """Return the vector norm over all tensors together, accumulated in float64, in any order with the same bits."""
    if order == 1:
        return math.fsum(map(l1, tensors))
    parts = [torch.linalg.vector_norm(t, order, dtype=torch.float64).item() ** order for t in tensors]
    return float(math.fsum(parts) ** (1 / order))
