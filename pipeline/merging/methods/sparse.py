"""Methods that make each task vector sparse and add the rest: DARE, DELLA, Breadcrumbs, magnitude masking."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import aggregate, of_edited, rescale, where_true
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
    always,
    check_selection,
    check_some,
    number,
    selected,
    used_experts,
)
from pipeline.merging.methods.by_parameter import Prune, of_pruned, over_pieces, rescaled
from pipeline.merging.methods.ties import KEEP, trim_thresholds
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def uniform(seed: int, place: int, name: str, shape: "torch.Size") -> "Tensor":
    """Draw on the CPU, seeded by the expert's place and the parameter's name: device and order do not matter."""
    import torch

    return torch.rand(shape, generator=_generator(seed, place, name))


def _generator(seed: int, place: int, name: str) -> "torch.Generator":
    import torch

    digest = hashlib.blake2b(f"{seed}/{place}/{name}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def _dropped(place: int, name: str, pieces: "Mapping[str, Tensor]", params: Params) -> Prune:
    """Draw once for each entry, in the order of the pieces, as for the parameter as a whole.

    Masks are kept as booleans; read as bytes they become floats eight times faster.
    """
    import torch

    drop, generator = number(params, "drop"), _generator(int(number(params, "seed")), place, name)
    masks: dict[str, Tensor] = {}

    def prune(key: str, entry: "Tensor") -> "Tensor":
        if key not in masks:
            draws = torch.rand(entry.shape, generator=generator)
            masks[key] = where_true(torch.ge, draws, drop).bool()
        pruned = entry * masks[key].view(torch.uint8).to(entry.device, entry.dtype)
        return pruned.div_(1 - drop) if params["rescale"] == "density" else pruned

    return prune


def _della(experts: Experts, weights: Sequence[Number], params: Params, election: bool = False) -> Entry:
    density, epsilon = number(params, "density"), number(params, "epsilon")
    seed, how = int(number(params, "seed")), str(params["rescale"])

    def edit(place: int, name: str, entry: "Tensor") -> "Tensor":
        if density == 1:
            return entry
        stays = _probabilities(entry, density, epsilon)
        kept = uniform(seed, place, name, entry.shape) < stays.cpu()
        pruned = entry * kept.to(entry.device, entry.dtype)
        return rescaled(lambda _, entry: pruned, {name: entry}, how)(name, entry)

    return of_edited(weights, str(params["aggregate"]), edit, election)


def _probabilities(entry: "Tensor", density: float, epsilon: float) -> "Tensor":
    """Return the probability that each entry stays: by its rank in its row, from density - epsilon to + epsilon.

    Rows are ranked along dimension 1, as in mergekit; a vector is one row. A row's only entry stays with `density`.
    """
    rows = entry if entry.dim() > 1 else entry.reshape(1, -1)
    ranks = rows.abs().argsort(dim=1, stable=True).argsort(dim=1)
    last = rows.shape[1] - 1
    share = ranks / last if last > 0 else ranks + 0.5
    return ((density - epsilon) + share * (2 * epsilon)).view(entry.shape)


def _check_della(method: str) -> Callable[[Sequence[Number], Params], None]:
    def check(weights: Sequence[Number], params: Params) -> None:
        check_some(method)(weights, params)
        density, epsilon = number(params, "density"), number(params, "epsilon")
        if density < 1 and not epsilon < min(density, 1 - density):
            raise ValueError(
                f"epsilon: density - epsilon and density + epsilon must be between 0 and 1, got {density:g} and "
                f"{epsilon:g}: lower epsilon, or set density to 1"
            )

    return check


def _crumbs(place: int, name: str, pieces: "Mapping[str, Tensor]", params: Params) -> Prune:
    """Of a parameter's n entries, drop the floor(top% n) largest, and keep the keep% n largest of the rest."""
    import torch

    from pipeline.merging.kth_largest import kth_largest_magnitudes

    size = sum(piece.numel() for piece in pieces.values())
    removed, staying = _counts(size, params)
    last = min(size, removed + staying)
    if last == removed:
        return lambda key, entry: entry * 0
    if not removed:
        (least,) = kth_largest_magnitudes(pieces, (last,))
        return lambda key, entry: entry * where_true(torch.ge, entry.abs(), least)
    least, most = kth_largest_magnitudes(pieces, (last, removed))

    def prune(key: str, entry: "Tensor") -> "Tensor":
        magnitude = entry.abs()
        kept = where_true(torch.ge, magnitude, least)
        kept *= where_true(torch.lt, magnitude, most)
        return kept.mul_(entry)

    return prune


def _counts(size: int, params: Params) -> tuple[int, int]:
    """Return how many of `size` entries go as the largest, and how many of the rest stay."""
    top, keep = number(params, "top"), number(params, "keep")
    if params["round"] == "up":
        return int(size * top / 100), math.ceil(size * keep / 100)
    return int(size * (top / 100)), int(size * (keep / 100))


def _check_breadcrumbs(method: str) -> Callable[[Sequence[Number], Params], None]:
    def check(weights: Sequence[Number], params: Params) -> None:
        check_some(method)(weights, params)
        top, keep = number(params, "top"), number(params, "keep")
        if top + keep > 100:
            raise ValueError(f"keep: must be at most the {100 - top:g} percent that top = {top:g} leaves, got {keep:g}")

    return check


def _magnitude(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    thresholds = trim_thresholds(selected(experts, weights), number(params, "keep"))
    least = dict(zip(used_experts(weights), thresholds, strict=True))

    def edit(place: int, name: str, entry: "Tensor") -> "Tensor":
        return entry * (entry.abs() >= least[place])

    return of_edited(weights, str(params["aggregate"]), edit)


_SEED = Parameter("seed", "of the random numbers", 0, "int", low=0)
_DROP = Parameter("drop", "probability that an entry is dropped", 0.9, low=0, high=1, open_high=True)
_CRUMBS = (
    Parameter("keep", "percent of a parameter's entries that stay", 14.3, low=0, high=100, open_low=True),
    Parameter("top", "percent of a parameter's entries that go, the largest", 0.7, low=0, high=100, open_high=True),
    aggregate("sum"),
    Parameter("round", "how keep becomes a number of entries", "up", "choice", choices=("up", "down")),
    rescale("no"),
)
_MAGPRUNE = (
    Parameter("density", "share of the entries of a parameter that stay", 0.5, low=0, high=1, open_low=True),
    Parameter("epsilon", "how far the share of the largest entries is above density", 0.15, low=0, high=1),
    _SEED,
    rescale("l1"),
)
_DARE, _DARE_TIES = of_pruned(_dropped), of_pruned(_dropped, election=True)
_BREADCRUMBS, _BREADCRUMBS_TIES = of_pruned(_crumbs), of_pruned(_crumbs, election=True)
DARE = Method(
    "drop entries at random, rescale the rest, add up: DARE (Yu et al., 2024)",
    over_pieces(_DARE),
    parameters=(_DROP, _SEED, aggregate("sum"), rescale("density", "density")),
    check=check_some("dare"),
    by_parameter=lambda params: _DARE,
    propagates=True,
)
DARE_TIES = Method(
    "drop entries at random, rescale the rest, elect a sign, add up what has it: DARE with TIES, as in mergekit",
    over_pieces(_DARE_TIES),
    parameters=(_DROP, _SEED, aggregate("sum"), rescale("l1", "density")),
    check=check_some("dare_ties"),
    by_parameter=lambda params: _DARE_TIES,
)
DELLA = Method(
    "drop small entries more often than large ones, elect a sign, merge what has it: DELLA (Deep et al., 2024)",
    partial(_della, election=True),
    parameters=(*_MAGPRUNE, aggregate("mean")),
    check=_check_della("della"),
)
DELLA_LINEAR = Method(
    "drop small entries more often than large ones, add up the rest: DELLA without its election, as in mergekit",
    _della,
    parameters=(*_MAGPRUNE, aggregate("sum")),
    check=_check_della("della_linear"),
)
BREADCRUMBS = Method(
    "per parameter, neither the largest nor the small entries, added up: Breadcrumbs (Davari & Belilovsky, 2023)",
    over_pieces(_BREADCRUMBS),
    parameters=_CRUMBS,
    check=_check_breadcrumbs("breadcrumbs"),
    by_parameter=lambda params: _BREADCRUMBS,
    propagates=True,
)
BREADCRUMBS_TIES = Method(
    "breadcrumbs with an election of signs, as in mergekit",
    over_pieces(_BREADCRUMBS_TIES),
    parameters=_CRUMBS,
    check=_check_breadcrumbs("breadcrumbs_ties"),
    by_parameter=lambda params: _BREADCRUMBS_TIES,
)
MAGNITUDE = Method(
    "the largest entries of each task vector, added up: magnitude masking (a baseline of Wang et al., 2024)",
    _magnitude,
    parameters=(KEEP, aggregate("sum")),
    check=check_selection("magnitude"),
    entrywise=always,
)
