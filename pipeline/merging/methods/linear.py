"""Methods that sum factors times task vectors."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import aggregate
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
    Prepare,
    always,
    check_count,
    check_selection,
    times,
)
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta

#: Weights whose sum is smaller add up to 0.
_NO_SUM = 1e-8


def _single(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    return experts.deltas[list(weights).index(1)]


def _entry_of_single(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    return lambda experts, name: _single(experts, weights, params)[name]


def _average(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    count = sum(1 for weight in weights if weight)
    return lambda experts, name: _sum(experts, weights, name).div_(count)


def _check_weighted(weights: Sequence[Number], params: Params) -> None:
    if params.get("aggregate") == "mean" and abs(math.fsum(weights)) < _NO_SUM:
        raise ValueError(f"method weighted: weights of a mean must not add up to 0, got {list(weights)}")


def _of(factors: Callable[[Sequence[Number], Params], Sequence[Number]]) -> Prepare:
    """Make a method that sums factor times task vector."""

    def prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
        found = factors(weights, params)
        return lambda experts, name: _sum(experts, found, name)

    return prepare


def _sum(experts: Experts, factors: Sequence[Number], name: str) -> "Tensor":
    """Sum in list order, as the oracle: another order of floating-point additions gives other bits."""
    used = [(delta, factor) for delta, factor in zip(experts.deltas, factors, strict=True) if factor != 0]
    if not used:
        first = experts.deltas[0][name]
        return first.new_zeros(first.shape)
    (start, share), *rest = used
    total = times(start, name, share)
    for delta, factor in rest:
        total += delta[name] if factor == 1 else times(delta, name, factor)
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


ZERO = Method("the pre-trained model itself", _of(_nothing), shares=_nothing, whole=True, entrywise=always)
SINGLE = Method(
    "one expert's task vector (weights one-hot)",
    _entry_of_single,
    check=check_count("single", 1),
    shares=_own,
    whole=True,
    entrywise=always,
    propagates=True,
    at_once=_single,
)
SUM = Method(
    "sum of the selected experts' task vectors: task arithmetic (section 5.2)",
    _of(_own),
    check=check_selection("sum"),
    shares=_own,
    entrywise=always,
    propagates=True,
)
AVERAGE = Method(
    "mean of the selected experts' task vectors: uniform soup (equation 3)",
    _average,
    check=check_selection("average"),
    shares=_equal,
    whole=True,
    entrywise=always,
    propagates=True,
)
WEIGHTED = Method(
    "sum with one weight for each expert: rewarded soup (equation 4)",
    _of(_shares),
    parameters=(aggregate("sum"),),
    check=_check_weighted,
    shares=_shares,
    whole=True,
    entrywise=always,
    propagates=True,
)
