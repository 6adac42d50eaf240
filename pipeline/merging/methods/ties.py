"""TIES: trim each task vector, elect a sign for each entry, merge the entries of that sign (Yadav et al., 2023).

Follows the code of the authors of LiNeS where the text leaves a choice open. Shape legend: T experts that take part, N
entries of one parameter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import (
    aggregate,
    column_pieces,
    elect,
    rescale,
    stacked,
    where_true,
)
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
    PrepareParameter,
    check_selection,
    check_some,
    number,
    selected,
)
from pipeline.merging.methods.by_parameter import Prune, of_pruned, over_pieces
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta

KEEP = Parameter(
    "keep", "percent of each task vector's entries that stay, the largest", 20, low=0, high=100, open_low=True
)


def trim_thresholds(deltas: "Sequence[Delta]", keep: float, outside: int = 0) -> list[float]:
    """Return the least magnitude of the entries that each task vector keeps.

    One entry more than `keep` percent stays, as in the authors' code. If that reaches into the entries that are 0, the
    threshold is 0 and all stay.

    Args:
        deltas: task vectors.
        keep: percent of all entries, including those outside.
        outside: number of entries that the task vectors do not hold and that are 0.
    """
    from pipeline.merging.kth_largest import kth_largest_magnitude

    held = sum(tensor.numel() for tensor in deltas[0].values())
    kept = int((held + outside) * (keep / 100)) + 1
    return [kth_largest_magnitude(delta, kept) if kept <= held else 0.0 for delta in deltas]


def _is_entrywise(params: Params) -> bool:
    return params["trim"] == "vector"


def _prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    if not _is_entrywise(params):
        return over_pieces(_BY_TENSOR)(experts, weights, params)
    vector = _Vector.trimmed(experts, weights, params)
    majority = sum(vector.merge(experts, name).net_sign for name in experts.deltas[0])
    return lambda experts, name: vector.merge(experts, name, tie_is_plus=majority > 0).values


def _at_once(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    """Assume plus first, and merge the few parameters again whose signs the majority decides, if it is minus."""
    if not _is_entrywise(params):
        entry = _prepare(experts, weights, params)
        return {name: entry(experts, name) for name in experts.deltas[0]}
    vector, combined, majority, undecided = _Vector.trimmed(experts, weights, params), {}, 0, []
    for name in experts.deltas[0]:
        merged = vector.merge(experts, name)
        combined[name] = merged.values
        majority += merged.net_sign
        if merged.has_ties:
            undecided.append(name)
    if majority <= 0:
        combined |= {name: vector.merge(experts, name, tie_is_plus=False).values for name in undecided}
    return combined


def _trimmed(place: int, name: str, pieces: "Mapping[str, Tensor]", params: Params) -> Prune:
    """Trim one parameter by itself: floor(keep n) of n entries stay, and one at least."""
    import torch

    from pipeline.merging.kth_largest import kth_largest_magnitude

    size = sum(piece.numel() for piece in pieces.values())
    kept = max(1, int(number(params, "keep") / 100 * size))
    least = kth_largest_magnitude(pieces, kept) if kept < size else 0.0
    return lambda key, entry: entry * where_true(torch.ge, entry.abs(), least)


#: Weights multiply before the election, in which a sum of 0 is plus.
_BY_TENSOR: PrepareParameter = of_pruned(_trimmed, election=True)


def _check_ties(weights: Sequence[Number], params: Params) -> None:
    if params["trim"] == "tensor":
        check_some("ties")(weights, params)
        if params["outside"]:
            raise ValueError(f"outside: must be 0 with trim: tensor, got {params['outside']}")
        return
    check_selection("ties", "ties with trim: tensor and the method weighted take any")(weights, params)
    if params["rescale"] != "no":
        raise ValueError(f"rescale: must be no unless trim is tensor, got {params['rescale']}")


@dataclass(frozen=True, slots=True)
class _Vector:
    """TIES with thresholds of whole task vectors.

    Memory: T times the largest parameter, and pieces of a few MB. If the kept entries of a position cancel out, the
    majority sign of the whole vector decides: the sign of the sum of all `net_sign`.
    """

    weights: Sequence[Number]
    thresholds: Sequence[float]
    average: bool

    @classmethod
    def trimmed(cls, experts: Experts, weights: Sequence[Number], params: Params) -> "_Vector":
        deltas, keep, outside = selected(experts, weights), number(params, "keep"), int(number(params, "outside"))
        return cls(weights, trim_thresholds(deltas, keep, outside), params["aggregate"] == "mean")

    def merge(self, experts: Experts, name: str, tie_is_plus: bool = True) -> "_Merged":
        stack = stacked(selected(experts, self.weights), name)
        return _merge(stack, self.thresholds, self.average, tie_is_plus)


@dataclass(frozen=True, slots=True)
class _Merged:
    """One parameter: its merged entries, the sum of its elected signs, and whether a sign depends on the majority."""

    values: "Tensor"
    net_sign: int
    has_ties: bool


def _merge(stack: "Tensor", thresholds: Sequence[float], average: bool, tie_is_plus: bool = True) -> _Merged:
    """Trim in place, elect and merge; a majority of 0 counts as minus, as in the authors' code."""
    import torch

    stack_TN = stack.view(len(stack), stack[0].numel())
    least_T1 = stack_TN.new_tensor(thresholds).unsqueeze(1)
    values_N = stack_TN.new_empty(stack_TN.shape[1])
    net = stack_TN.new_zeros((), dtype=torch.int64)
    ties = stack_TN.new_zeros((), dtype=torch.bool)
    for piece in column_pieces(stack_TN.shape[1]):
        part = stack_TN[:, piece]
        part *= where_true(torch.ge, part.abs(), least_T1)
        merged, total = elect(part, (1,) * len(stack), average, tie_is_plus)
        values_N[piece] = merged
        net += total.sign().sum().long()
        ties |= ((total == 0) & (merged != 0)).any()
    return _Merged(values_N.view(stack.shape[1:]), int(net), bool(ties))


TIES = Method(
    "trim, elect a sign, merge what has it: TIES (Yadav et al., 2023)",
    _prepare,
    parameters=(
        KEEP,
        aggregate("mean"),
        Parameter(
            "outside",
            "entries of the checkpoint outside the merged tensors, which are frozen and so 0: keep counts them too",
            0,
            "int",
            low=0,
        ),
        Parameter(
            "trim",
            "what keeps its largest entries: the whole vector, or each parameter by itself, as in mergekit",
            "vector",
            "choice",
            choices=("vector", "tensor"),
        ),
        rescale("no"),
    ),
    check=_check_ties,
    entrywise=_is_entrywise,
    by_parameter=lambda params: None if _is_entrywise(params) else _BY_TENSOR,
    at_once=_at_once,
)
