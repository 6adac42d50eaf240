"""Task vectors (an expert's weights minus the base's, by parameter name), and their sizes and norms."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.merging.components import Components
from pipeline.merging.control_constants import Cell
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
    names = {name: tensor.numel() for name, tensor in tensors.items()}
    counts = cell_counts(layer_map, names, Components())
    outside, *blocks = (int(counts.get((place, 1.0), 0)) for place in range(1 + layer_map.num_blocks))
    return LayerSizes(outside, tuple(blocks), names)


def cell_counts(layer_map: LayerMap, names: Mapping[str, int], components: Components) -> dict[Cell, float]:
    """Return the number of entries in each cell; `names` has that of each tensor."""
    counts: dict[Cell, float] = {}
    for name, count in names.items():
        cell = _cell(layer_map, components, name)
        counts[cell] = counts.get(cell, 0) + count
    return counts


def cell_norms(
    layer_map: LayerMap, tensors: Mapping[str, Tensor], components: Components, name_of: Callable[[str], str] = str
) -> dict[Cell, float]:
    """Return the L2 norm of each cell, accumulated in float64; each entry is read once.

    Args:
        layer_map: over the names of parameters.
        tensors: key -> parameter, or a piece of one.
        components: with the factors.
        name_of: key -> name of its parameter.
    """
    squares: dict[Cell, list[float]] = {}
    for key, tensor in tensors.items():
        squares.setdefault(_cell(layer_map, components, name_of(key)), []).append(norm([tensor]) ** 2)
    return {cell: math.sqrt(math.fsum(square)) for cell, square in squares.items()}


def _cell(layer_map: LayerMap, components: Components, name: str) -> Cell:
    return layer_map.blocks.get(name, -1) + 1, components.factor(name)


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
