"""Helpers of several methods: one parameter of all experts as a stack, and sums and means over experts.

Shape legend: T experts that take part, N entries of one parameter.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.base import Experts, used_experts
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta

#: Columns processed together: those of 20 experts fill 5 MB, which stays in the cache between operations.
COLUMNS = 1 << 16
#: torch adds the rows of columns beyond a multiple of this in another order.
_LANES = 64


def aggregate(default: str) -> Parameter:
    """Declare the parameter that chooses between the sum and the mean over experts."""
    return Parameter("aggregate", "how entries of experts become one", default, "choice", choices=("mean", "sum"))


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


def combine_edited(
    experts: Experts, weights: Sequence[Number], how: str, edit: "Callable[[int, str, Tensor], Tensor]"
) -> "Delta":
    """Sum or average, in the run's order, the edited entries of each expert.

    Args:
        experts: whose entries are edited.
        weights: 0 leaves an expert out.
        how: "sum" or "mean".
        edit: (place in the run's order, parameter name, entry) -> edited entry.
    """
    used, combined = used_experts(weights), {}
    for name in experts.deltas[0]:
        total = sum_of(edit(place, name, experts.deltas[place][name]) for place in used)
        combined[name] = total / len(used) if how == "mean" else total
    return combined


def sum_of(entries: "Iterable[Tensor]") -> "Tensor":
    """Sum tensors in their order into a new one."""
    parts = iter(entries)
    total = next(parts).clone()
    for part in parts:
        total += part
    return total


def mean_of(experts: Experts, used: Sequence[int], name: str) -> "Tensor":
    """Average one parameter over the experts at the places `used`."""
    return sum_of(experts.deltas[place][name] for place in used) / len(used)
