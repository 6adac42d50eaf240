"""Methods that take a part of one expert into the base: nearswap and Arcee Fusion of mergekit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.base import Entry, Experts, Method, Params, always, check_count, number, used_experts
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

#: Changes that are smaller count as this, as in mergekit.
_LEAST_CHANGE = 1e-6
#: Added to probabilities before their logarithm, as in mergekit.
_LEAST_PROBABILITY = 1e-8


def _nearswap(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    (place,), t = used_experts(weights), number(params, "t")

    def entry(experts: Experts, name: str) -> "Tensor":
        change = experts.deltas[place][name]
        return change * (t / change.abs().clamp(min=_LEAST_CHANGE)).clamp(max=1)

    return entry


def _arcee_fusion(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    (place,) = used_experts(weights)

    def entry(experts: Experts, name: str) -> "Tensor":
        assert experts.base is not None, "every caller has the base's weights"
        change, base = experts.deltas[place][name], experts.base[name].float()
        if not change.numel():
            return change
        importance = _importance(change, base)
        return change * (importance >= _threshold(importance.reshape(-1)))

    return entry


def _importance(change: "Tensor", base: "Tensor") -> "Tensor":
    """Return |change| times the divergence of each row's softmax from the base's, in mergekit's operations.

    The divergence is so small that float32 rounds its digits: another order of operations would choose other entries.
    """
    expert = base + change
    p, q = (weight.softmax(-1) + _LEAST_PROBABILITY for weight in (expert, base))
    divergence = (p * (p / q).log()).sum(-1, keepdim=True)
    importance: Tensor = (expert - base).abs() * divergence
    return importance


def _threshold(importance: "Tensor") -> float:
    """Return the median plus 1.5 times the distance between the quartiles, each an entry of `importance`."""
    last = importance.numel() - 1
    low, median, high = (float(importance.kthvalue(last * part // 4 + 1).values) for part in (1, 2, 3))
    return median + 1.5 * (high - low)


NEARSWAP = Method(
    "moves the base towards one expert, at most t in each entry: nearswap of mergekit",
    _nearswap,
    parameters=(Parameter("t", "the largest change of an entry, in units of the weights", 1e-4, low=0, open_low=True),),
    check=check_count("nearswap", 1),
    whole=True,
    entrywise=always,
)
ARCEE_FUSION = Method(
    "the entries of one expert that matter most, by their change and their row's softmax: Arcee Fusion of mergekit",
    _arcee_fusion,
    check=check_count("arcee_fusion", 1),
    whole=True,
)
