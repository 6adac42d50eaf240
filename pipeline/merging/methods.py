"""Merge methods: from the experts' task vectors to one combined vector, before any scaling.

A method never sees alpha, beta or the scaling function, so a combined vector serves every scaling of it. Importing this
module does not import torch: specs read `METHODS` for names and parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipeline.merging.parameters import Parameter
from pipeline.recipe import Number, ParamValue

if TYPE_CHECKING:
    from torch import Tensor

    Delta: TypeAlias = Mapping[str, Tensor]
    Combine: TypeAlias = Callable[[Sequence[Delta], Sequence[Number], Mapping[str, ParamValue]], Delta]


@dataclass(frozen=True, slots=True)
class Method:
    """How task vectors are combined.

    Attributes:
        doc: one line for people.
        combine: (task vectors, one weight for each, parameters) -> combined vector. Task vectors are float32 by
            parameter name, and are never written to; the result is float32 with the same names and shapes, and may be
            one of them. Raises ValueError for weights that the method cannot use.
        parameters: what the method takes.
    """

    doc: str
    combine: "Combine"
    parameters: tuple[Parameter, ...] = ()


def resolve_weights(weights: Sequence[Number], num_experts: int) -> tuple[Number, ...]:
    """One weight for each expert: 1 for each where `weights` is empty.

    Raises:
        ValueError: another number of weights than of experts.
    """
    if weights and len(weights) != num_experts:
        raise ValueError(f"weights: must be one for each of {num_experts} experts, got {len(weights)}")
    return tuple(weights) or (1,) * num_experts


def _zero(deltas: "Sequence[Delta]", weights: Sequence[Number], params: Mapping[str, ParamValue]) -> "Delta":
    return {name: delta.new_zeros(delta.shape) for name, delta in deltas[0].items()}


def _single(deltas: "Sequence[Delta]", weights: Sequence[Number], params: Mapping[str, ParamValue]) -> "Delta":
    used = _selected("single", deltas, weights)
    if len(used) != 1:
        raise ValueError(f"method single: weights must be 1 for one expert and 0 for the others, got {list(weights)}")
    return used[0]


def _sum(deltas: "Sequence[Delta]", weights: Sequence[Number], params: Mapping[str, ParamValue]) -> "Delta":
    used = _selected("sum", deltas, weights)
    return _weighted(used, [1] * len(used), params)


def _average(deltas: "Sequence[Delta]", weights: Sequence[Number], params: Mapping[str, ParamValue]) -> "Delta":
    used = _selected("average", deltas, weights)
    total = _weighted(used, [1] * len(used), params)
    return {name: tensor / len(used) for name, tensor in total.items()}


def _weighted(deltas: "Sequence[Delta]", weights: Sequence[Number], params: Mapping[str, ParamValue]) -> "Delta":
    """Sum in list order, as the oracle does: floating-point addition in another order gives other bits."""
    used = [(delta, weight) for delta, weight in zip(deltas, weights, strict=True) if weight != 0]
    if not used:
        return _zero(deltas, weights, params)
    total = {name: tensor * used[0][1] for name, tensor in used[0][0].items()}
    for delta, weight in used[1:]:
        for name, tensor in total.items():
            tensor += delta[name] if weight == 1 else delta[name] * weight
    return total


def _selected(method: str, deltas: "Sequence[Delta]", weights: Sequence[Number]) -> "list[Delta]":
    if any(weight not in (0, 1) for weight in weights):
        raise ValueError(
            f"method {method}: weights select experts and must be 0 or 1, got {list(weights)}; "
            "the method 'weighted' takes any"
        )
    used = [delta for delta, weight in zip(deltas, weights, strict=True) if weight]
    if not used:
        raise ValueError(f"method {method}: weights must select at least one expert, got {list(weights)}")
    return used


METHODS: dict[str, Method] = {
    "zero": Method("the pre-trained model itself", _zero),
    "single": Method("one expert's task vector (weights one-hot)", _single),
    "sum": Method("sum of the selected experts' task vectors: task arithmetic (section 5.2)", _sum),
    "average": Method("mean of the selected experts' task vectors: uniform soup (equation 3)", _average),
    "weighted": Method("sum with one weight for each expert: rewarded soup (equation 4)", _weighted),
}
