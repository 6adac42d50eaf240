"""Methods that sum factors times task vectors."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import aggregate
from pipeline.merging.methods.base import CHOOSE_EXPERTS, Experts, Method, Params, check_selection, used_experts
from pipeline.recipe import Number

if TYPE_CHECKING:
    from pipeline.merging.methods.base import Delta

#: Weights whose sum is smaller add up to 0.
_NO_SUM = 1e-8


def _check_single(weights: Sequence[Number], params: Params) -> None:
    check_selection("single")(weights, params)
    if (count := len(used_experts(weights))) != 1:
        raise ValueError(f"method single: takes one expert, got {count}: {CHOOSE_EXPERTS}")


def _zero(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    return {name: delta.new_zeros(delta.shape) for name, delta in experts.deltas[0].items()}


def _single(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    return experts.deltas[list(weights).index(1)]


def _average(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    count = sum(1 for weight in weights if weight)
    return {name: tensor / count for name, tensor in _weighted(experts, weights, params).items()}


def _check_weighted(weights: Sequence[Number], params: Params) -> None:
    if params.get("aggregate") == "mean" and abs(math.fsum(weights)) < _NO_SUM:
        raise ValueError(f"method weighted: weights of a mean must not add up to 0, got {list(weights)}")


def _sum_or_mean(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    return _weighted(experts, _shares(weights, params), params)


def _weighted(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    """Sum in list order, as the oracle: another order of floating-point additions gives other bits."""
    used = [(delta, weight) for delta, weight in zip(experts.deltas, weights, strict=True) if weight != 0]
    if not used:
        return _zero(experts, weights, params)
    total = {name: tensor * used[0][1] for name, tensor in used[0][0].items()}
    for delta, weight in used[1:]:
        for name, tensor in total.items():
            tensor += delta[name] if weight == 1 else delta[name] * weight
    return total


def _shares(weights: Sequence[Number], params: Params) -> Sequence[Number]:
    if params.get("aggregate", "sum") == "sum":
        return weights
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _own(weights: Sequence[Number], params: Params) -> Sequence[Number]:
    return weights


def _equal(weights: Sequence[Number], params: Params) -> Sequence[Number]:
    count = sum(1 for weight in weights if weight)
    return [weight / count for weight in weights]


def _nothing(weights: Sequence[Number], params: Params) -> Sequence[Number]:
    return [0] * len(weights)


ZERO = Method("the pre-trained model itself", _zero, shares=_nothing, whole=True)
SINGLE = Method("one expert's task vector (weights one-hot)", _single, check=_check_single, shares=_own, whole=True)
SUM = Method(
    "sum of the selected experts' task vectors: task arithmetic (section 5.2)",
    _weighted,
    check=check_selection("sum"),
    shares=_own,
)
AVERAGE = Method(
    "mean of the selected experts' task vectors: uniform soup (equation 3)",
    _average,
    check=check_selection("average"),
    shares=_equal,
    whole=True,
)
WEIGHTED = Method(
    "sum with one weight for each expert: rewarded soup (equation 4)",
    _sum_or_mean,
    parameters=(aggregate("sum"),),
    check=_check_weighted,
    shares=_shares,
    whole=True,
)
