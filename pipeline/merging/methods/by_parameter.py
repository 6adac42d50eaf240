"""Methods that treat each parameter by itself, and read it in pieces that fit a cache.

Shape legend: T experts that take part, N entries of a piece.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pipeline.merging.methods.aggregation import of_edited
from pipeline.merging.methods.base import Entry, Experts, Params, Prepare, PrepareParameter, used_experts
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

#: (key of a piece, its entries) -> new entries, of which some are 0.
Prune: TypeAlias = "Callable[[str, Tensor], Tensor]"
#: (place in the run's order, name of the parameter, its pieces, parameters of the method) -> how it is pruned.
PruneOf: TypeAlias = "Callable[[int, str, Mapping[str, Tensor], Params], Prune]"


def over_pieces(prepare: PrepareParameter) -> Prepare:
    """Return what computes whole parameters from their pieces, each expert's read once."""

    def prepared(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
        return lambda experts, name: _whole(prepare, experts, weights, params, name)

    return prepared


def _whole(
    prepare: PrepareParameter, experts: Experts, weights: Sequence[Number], params: Params, name: str
) -> "Tensor":
    import torch

    from pipeline.merging.parameter_pieces import split

    used = used_experts(weights)
    first = experts.deltas[used[0]][name]
    deltas: list[Mapping[str, Tensor]] = [{} for _ in weights]
    for place in used:
        deltas[place] = split(first if place == used[0] else experts.deltas[place][name])
    base = None if experts.base is None else split(experts.base[name])
    cut = Experts(deltas, base)
    entry = prepare(name, cut, weights, params)
    found = [entry(cut, key) for key in deltas[used[0]]]
    return torch.cat(found).view(first.shape) if found else first.new_zeros(first.shape)


def of_pruned(prune_of: PruneOf, election: bool = False) -> PrepareParameter:
    """Return what sums or averages pruned task vectors by `aggregate`, after `rescale` (see `of_edited`)."""

    def prepare(name: str, experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
        def pruned(place: int) -> Prune:
            pieces = experts.deltas[place]
            return rescaled(prune_of(place, name, pieces, params), pieces, str(params["rescale"]))

        prunes = {place: pruned(place) for place in used_experts(weights)}
        return of_edited(
            weights, str(params["aggregate"]), lambda place, key, entry: prunes[place](key, entry), election
        )

    return prepare


def rescaled(prune: Prune, pieces: "Mapping[str, Tensor]", how: str) -> Prune:
    """Multiply pruned entries so that they have the L1 norm of all entries of the parameter, if `how` is "l1"."""
    import math

    from pipeline.merging.parameter_pieces import l1

    if how != "l1":
        return prune
    before, after = [], []
    for key, entry in pieces.items():
        before.append(l1(entry))
        after.append(l1(prune(key, entry)))
    if not any(after):
        return prune
    factor = math.fsum(before) / math.fsum(after)
    return lambda key, entry: prune(key, entry).mul_(factor)


def products(points: "Callable[[str], Sequence[Tensor]]", keys: "Mapping[str, Tensor]", count: int) -> "Tensor":
    """Return the scalar products (T, T) of all pairs of vectors, in float64.

    Args:
        points: key of a piece -> T vectors of N entries.
        keys: the pieces.
        count: T.
    """
    import torch

    sums = [[0.0] * count for _ in range(count)]
    for key in keys:
        wide = [point.reshape(-1).double() for point in points(key)]
        for row, a in enumerate(wide):
            for column, b in enumerate(wide[: row + 1]):
                sums[row][column] += float(a @ b)
    total = torch.tensor(sums, dtype=torch.float64).view(count, count)
    return total + total.tril(-1).T
