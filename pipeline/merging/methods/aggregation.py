"""Helpers of several methods: one parameter of all experts as a stack, sums, means and elections over experts.

Shape legend: T experts that take part, N entries of one parameter.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.base import Entry, Experts, used_experts
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta

#: Columns processed together: those of 20 experts fill 5 MB, which stays in the cache between operations.
COLUMNS = 1 << 16
#: torch adds the rows of columns beyond a multiple of this in another order.
_LANES = 64
#: Weights whose sum is smaller add up to 0.
_NO_SUM = 1e-8


def aggregate(default: str) -> Parameter:
    """Declare the parameter that chooses between the sum and the mean over experts."""
    return Parameter("aggregate", "how entries of experts become one", default, "choice", choices=("mean", "sum"))


def rescale(default: str, *others: str) -> Parameter:
    """Declare the parameter that chooses how entries that stay make up for the others."""
    doc = "what the entries that stay are multiplied by: l1 keeps each parameter's L1 norm, no leaves them"
    return Parameter("rescale", doc, default, "choice", choices=(*others, "l1", "no"))


def stacked(deltas: "Sequence[Delta]", name: str) -> "Tensor":
    """Return a new tensor (T, ...) with one parameter of all experts; each expert's is read once."""
    first = deltas[0][name]
    stack = first.new_empty((len(deltas), *first.shape))
    stack[0] = first
    for row, delta in enumerate(deltas[1:], start=1):
        stack[row] = delta[name]
    return stack


def column_pieces(count: int) -> Iterator[slice]:
    """Yield slices that cover `count` columns, each small enough for a cache."""
    for start in range(0, count, COLUMNS):
        yield slice(start, min(start + COLUMNS, count))


def column_sum(part_TN: "Tensor") -> "Tensor":
    """Sum over experts (N,), with the bits of `sum(dim=0)` over whole flattened vectors, as in the authors' code.

    From 17 rows, torch adds them in another order at the end of a vector than within it, so the end is padded.
    """
    from torch.nn.functional import pad

    count = part_TN.shape[1]
    if count % _LANES == 0:
        return part_TN.sum(0)
    return pad(part_TN, (0, -count % _LANES)).sum(0)[:count]


def where_true(comparison: "Callable[..., Tensor]", part: "Tensor", bound: "Tensor | float") -> "Tensor":
    """Return 1.0 where `comparison(part, bound)` holds, else 0.0; booleans multiply and add five times slower."""
    import torch

    return comparison(part, bound, out=torch.empty_like(part))


def of_edited(
    weights: Sequence[Number],
    how: str,
    edit: "Callable[[int, str, Tensor], Tensor]",
    election: bool = False,
) -> Entry:
    """Return what sums or averages, in the run's order, the edited entries of each expert times its weight.

    Args:
        weights: 0 leaves an expert out.
        how: "sum"; or "mean", which divides by the sum of the weights.
        edit: (place in the run's order, parameter name, entry) -> edited entry.
        election: whether an entry is merged from the experts with its elected sign only (see `elect`).
    """
    used = used_experts(weights)
    factors = [weights[place] for place in used]

    def weighted(experts: Experts, place: int, name: str) -> "Tensor":
        entry = edit(place, name, experts.deltas[place][name])
        return entry if weights[place] == 1 else entry * weights[place]

    def combined(experts: Experts, name: str) -> "Tensor":
        entries = (weighted(experts, place, name) for place in used)
        if election:
            return _elected(list(entries), factors, how == "mean")
        total = sum_of(entries)
        return total / _divisor(factors) if how == "mean" else total

    return combined


def _divisor(weights: Sequence[Number]) -> float:
    """Return the sum of the weights, or 1 if it is 0: nothing is divided then, as in mergekit."""
    total = math.fsum(weights)
    return total if abs(total) >= _NO_SUM else 1


def _elected(entries: "Sequence[Tensor]", weights: Sequence[Number], average: bool) -> "Tensor":
    import torch

    stack_TN = torch.stack([entry.reshape(-1) for entry in entries])
    merged_N = stack_TN.new_empty(stack_TN.shape[1])
    for piece in column_pieces(stack_TN.shape[1]):
        merged_N[piece] = elect(stack_TN[:, piece], weights, average)[0]
    return merged_N.view(entries[0].shape)


def elect(
    part_TN: "Tensor", weights: Sequence[Number], average: bool, tie_is_plus: bool = True
) -> "tuple[Tensor, Tensor]":
    """Elect the sign of each entry's sum over experts, and merge the entries of that sign.

    Args:
        part_TN: entries times weights.
        weights: (T,); with `average`, the merged entries are divided by the sum of the weights of their experts.
        average: whether to divide.
        tie_is_plus: the sign of a sum that is 0.

    Returns:
        The merged entries (N,), and the sums (N,) that elected their signs.
    """
    import torch

    total = column_sum(part_TN)
    plus = total >= 0 if tie_is_plus else total > 0
    merged = torch.where(plus, column_sum(part_TN.clamp(min=0)), column_sum(part_TN.clamp(max=0)))
    if average:
        above, below = where_true(torch.gt, part_TN, 0), where_true(torch.lt, part_TN, 0)
        if any(weight != 1 for weight in weights):
            weights_T1 = part_TN.new_tensor(weights).unsqueeze(1)
            above, below = above * weights_T1, below * weights_T1
        count = torch.where(plus, above.sum(0), below.sum(0))
        merged /= count.where(count != 0, 1)
    return merged, total


def sum_of(entries: "Iterable[Tensor]", into_first: bool = False) -> "Tensor":
    """Sum tensors in their order into a new one, or into the first."""
    parts = iter(entries)
    if into_first:
        total = next(parts)
        for part in parts:
            total += part
        return total
    first, second = next(parts), next(parts, None)
    if second is None:
        return first.clone()
    total = first + second
    for part in parts:
        total += part
    return total


def mean_of(experts: Experts, used: Sequence[int], name: str) -> "Tensor":
    """Average one parameter over the experts at the places `used`."""
    return sum_of(experts.deltas[place][name] for place in used).div_(len(used))
