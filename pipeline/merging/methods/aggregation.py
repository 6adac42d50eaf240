"""What several methods share: the same parameter of all experts side by side, and sums and means over them.

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

#: Columns worked on together: those of 20 experts fill 5 MB, which stays in the cache from one operation to the next.
_COLUMNS = 1 << 16
#: torch adds the rows of columns beyond a multiple of this in another order.
_LANES = 64


def aggregate(default: str) -> Parameter:
    """The parameter that says how what each expert gives becomes one."""
    return Parameter("aggregate", "how entries of experts become one", default, "choice", choices=("mean", "sum"))


def stacked(deltas: "Sequence[Delta]", name: str) -> "Tensor":
    """A new tensor (T, ...) with one parameter of all experts; each expert's is read once."""
    first = deltas[0][name]
    stack = first.new_empty((len(deltas), *first.shape))
    stack[0] = first
    for row, delta in enumerate(deltas[1:], start=1):
        stack[row] = delta[name]
    return stack


def column_pieces(count: int) -> Iterator[slice]:
    """Slices that cover `count` columns, each small enough for a cache."""
    for start in range(0, count, _COLUMNS):
        yield slice(start, min(start + _COLUMNS, count))


def column_sum(part_TN: "Tensor") -> "Tensor":
    """The sum over experts (N,), with the bits of `sum(dim=0)` over whole flattened vectors, as the authors take it.

    From 17 rows on torch adds them in another order at the end of a vector than within it: so the end is padded away.
    """
    from torch.nn.functional import pad

    count = part_TN.shape[1]
    if count % _LANES == 0:
        return part_TN.sum(0)
    return pad(part_TN, (0, -count % _LANES)).sum(0)[:count]


def where_true(comparison: "Callable[..., Tensor]", part: "Tensor", bound: "Tensor | float") -> "Tensor":
    """1.0 where `comparison(part, bound)` holds, else 0.0: to multiply or add up booleans takes five times as long."""
    import torch

    return comparison(part, bound, out=torch.empty_like(part))


def combine_edited(
    experts: Experts, weights: Sequence[Number], how: str, edit: "Callable[[int, str, Tensor], Tensor]"
) -> "Delta":
    """Sum or mean, in the run's order, of what `edit(place, name, entry)` makes of each expert's entries.

    Args:
        experts: whose entries are edited.
        weights: 0 leaves an expert out.
        how: "sum" or "mean".
        edit: of the expert at that place in the run's order.
    """
    used, combined = used_experts(weights), {}
    for name in experts.deltas[0]:
        total = sum_of(edit(place, name, experts.deltas[place][name]) for place in used)
        combined[name] = total / len(used) if how == "mean" else total
    return combined


def sum_of(entries: "Iterable[Tensor]") -> "Tensor":
    """Their sum in that order, a new tensor."""
    parts = iter(entries)
    total = next(parts).clone()
    for part in parts:
        total += part
    return total


def mean_of(experts: Experts, used: Sequence[int], name: str) -> "Tensor":
    """The mean of one parameter over the experts at the places `used`."""
    return sum_of(experts.deltas[place][name] for place in used) / len(used)
