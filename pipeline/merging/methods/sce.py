"""SCE: select entries by their variance over experts, weight experts by their squares, erase minority signs.

Shape legend: T experts that take part, N entries of a piece.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import stacked, where_true
from pipeline.merging.methods.base import Entry, Experts, Method, Params, check_selection, number, selected
from pipeline.merging.methods.by_parameter import over_pieces
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

#: Sums of shares that are smaller divide as this, as in mergekit.
_LEAST_SHARES = 1e-6


def _sce(name: str, experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    """Return what computes a piece: the mean, by the experts' shares, of the selected entries of the elected sign."""
    import torch

    kept = _selected_entries(experts, weights, number(params, "density"))

    def chosen(experts: Experts, key: str) -> "Tensor":
        stack_TN = stacked(selected(experts, weights), key)
        return stack_TN * kept[key] if key in kept else stack_TN

    keys = selected(experts, weights)[0]
    shares = _shares((chosen(experts, key) for key in keys), number(params, "equal_below"))

    def entry(experts: Experts, key: str) -> "Tensor":
        stack_TN = chosen(experts, key)
        elected_N = where_true(torch.ge, stack_TN.sum(0), 0) * 2 - 1
        shares_TN = (stack_TN.sign() == elected_N) * stack_TN.new_tensor(shares).unsqueeze(1)
        return (stack_TN * shares_TN).sum(0) / shares_TN.sum(0).clamp(min=_LEAST_SHARES)

    return entry


def _selected_entries(experts: Experts, weights: Sequence[Number], density: float) -> "Mapping[str, Tensor]":
    """Return for each piece 1.0 where the variance over experts is among the largest, else 0.0; {} if all stay.

    floor(density n) entries stay, n of which have a variance other than 0; in float32, as mergekit counts.
    """
    import torch

    from pipeline.merging.kth_largest import kth_largest_magnitude

    if density == 1:
        return {}
    deltas = selected(experts, weights)
    variances = {key: stacked(deltas, key).var(0, correction=0) for key in deltas[0]}
    varied = sum(int(part.count_nonzero()) for part in variances.values())
    count = int(torch.tensor(varied) * density)
    least = kth_largest_magnitude(variances, count) if count else math.inf
    return {key: where_true(torch.ge, part, least) for key, part in variances.items()}


def _shares(stacks: "Iterable[Tensor]", equal_below: float) -> list[float]:
    """Return each expert's share in the sum of squares of all entries; () without entries.

    Shares are equal where the sum of the mean squares is below `equal_below`, or 0.
    """
    rows = [(stack.shape[1], [float(row.double().square().sum()) for row in stack]) for stack in stacks]
    squares = [math.fsum(parts) for parts in zip(*(parts for _, parts in rows), strict=True)]
    total, size = math.fsum(squares), sum(count for count, _ in rows)
    if total == 0 or total / size < equal_below:
        return [1 / len(squares) for _ in squares]
    return [square / total for square in squares]


SCE = Method(
    "entries of large variance and elected sign, weighted by the experts' squares: SCE (Wan et al., 2024)",
    over_pieces(_sce),
    parameters=(
        Parameter(
            "density",
            "share of the entries that differ between experts that stay, those of the largest variance",
            1.0,
            low=0,
            high=1,
            open_low=True,
        ),
        Parameter(
            "equal_below",
            "sum of the experts' mean squares below which all have one weight; 1e-6 in mergekit",
            0.0,
            low=0,
        ),
    ),
    check=check_selection("sce"),
    whole=True,
    by_parameter=lambda params: _sce,
)
