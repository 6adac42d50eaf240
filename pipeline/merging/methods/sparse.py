"""Methods that make each task vector sparse and add the rest: DARE, Breadcrumbs, magnitude masking."""

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import aggregate, combine_edited
from pipeline.merging.methods.base import Experts, Method, Params, check_selection, number, selected, used_experts
from pipeline.merging.methods.ties import KEEP, trim_thresholds
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta


def _dare(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    """Draw on the CPU, seeded by the expert's place and the parameter's name: device and order do not matter."""
    import torch

    drop, seed = number(params, "drop"), int(number(params, "seed"))

    def edit(place: int, name: str, entry: "Tensor") -> "Tensor":
        digest = hashlib.blake2b(f"{seed}/{place}/{name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        kept = torch.rand(entry.shape, generator=generator) >= drop
        return entry * kept.to(entry.device) / (1 - drop)

    return combine_edited(experts, weights, str(params["aggregate"]), edit)


def _breadcrumbs(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    """Of each parameter's n entries, drop the floor(top% n) largest, and keep the ceil(keep% n) largest of the rest."""
    from pipeline.merging.kth_largest import kth_largest_magnitude

    top, keep = number(params, "top"), number(params, "keep")

    def edit(place: int, name: str, entry: "Tensor") -> "Tensor":
        removed = int(entry.numel() * top / 100)
        last = min(entry.numel(), removed + math.ceil(entry.numel() * keep / 100))
        size, whole = entry.abs(), {name: entry}
        kept = size >= kth_largest_magnitude(whole, last)
        if removed:
            kept &= size < kth_largest_magnitude(whole, removed)
        return entry * kept

    return combine_edited(experts, weights, str(params["aggregate"]), edit)


def _check_breadcrumbs(weights: Sequence[Number], params: Params) -> None:
    check_selection("breadcrumbs")(weights, params)
    top, keep = number(params, "top"), number(params, "keep")
    if top + keep > 100:
        raise ValueError(f"keep: must be at most the {100 - top:g} percent that top = {top:g} leaves, got {keep:g}")


def _magnitude(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    thresholds = trim_thresholds(selected(experts, weights), number(params, "keep"))
    least = dict(zip(used_experts(weights), thresholds, strict=True))

    def edit(place: int, name: str, entry: "Tensor") -> "Tensor":
        return entry * (entry.abs() >= least[place])

    return combine_edited(experts, weights, str(params["aggregate"]), edit)


DARE = Method(
    "drop entries at random, rescale the rest, add up: DARE (Yu et al., 2024)",
    _dare,
    parameters=(
        Parameter("drop", "probability that an entry is dropped", 0.9, low=0, high=1, open_high=True),
        Parameter("seed", "of the random numbers", 0, "int", low=0),
        aggregate("sum"),
    ),
    check=check_selection("dare"),
)
BREADCRUMBS = Method(
    "per parameter, neither the largest nor the small entries, added up: Breadcrumbs (Davari & Belilovsky, 2023)",
    _breadcrumbs,
    parameters=(
        Parameter("keep", "percent of a parameter's entries that stay", 14.3, low=0, high=100, open_low=True),
        Parameter("top", "percent of a parameter's entries that go, the largest", 0.7, low=0, high=100, open_high=True),
        aggregate("sum"),
    ),
    check=_check_breadcrumbs,
)
MAGNITUDE = Method(
    "the largest entries of each task vector, added up: magnitude masking (a baseline of Wang et al., 2024)",
    _magnitude,
    parameters=(KEEP, aggregate("sum")),
    check=check_selection("magnitude"),
)
