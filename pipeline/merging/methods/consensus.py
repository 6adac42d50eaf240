"""TALL masks, and Consensus, which merges the entries that enough masks keep (Wang et al., 2024).

The mask of expert t keeps an entry where |theta_0 - theta_t| > lambda |theta_MTL - theta_t|. The differences are taken
between weights, as in the authors' code, and not between task vectors: the rounding of the sums theta_0 + tau decides
entries that are almost equal. Shape legend: T experts that take part, N entries of one parameter.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import column_pieces, column_sum, stacked, where_true
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
    always,
    check_expert,
    check_selection,
    number,
    selected,
    used_experts,
)
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

_LAMBDA = "tall_lambda"


def _check_consensus(weights: Sequence[Number], params: Params) -> None:
    check_selection("consensus")(weights, params)
    lambdas = params[_LAMBDA]
    if isinstance(lambdas, tuple) and len(lambdas) != len(weights):
        raise ValueError(
            f"{_LAMBDA}: must be one number, or one for each of {len(weights)} experts, got {len(lambdas)}"
        )
    threshold, used = int(number(params, "threshold")), len(used_experts(weights))
    if threshold > used:
        raise ValueError(f"threshold: must be at most the number of experts that take part, {used}, got {threshold}")


def _check_tall_mask(weights: Sequence[Number], params: Params) -> None:
    check_selection("tall_mask")(weights, params)
    check_expert(weights, params)


def _consensus(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    lambdas = params[_LAMBDA]
    each = lambdas if isinstance(lambdas, tuple) else (number(params, _LAMBDA),) * len(weights)
    used = used_experts(weights)
    return _masked_sum(weights, used, [each[place] for place in used], int(number(params, "threshold")))


def _tall_mask(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    expert = int(number(params, "expert"))
    return _masked_sum(weights, [expert], [number(params, _LAMBDA)], 1)


def _masked_sum(weights: Sequence[Number], masked: Sequence[int], lambdas: Sequence[float], threshold: int) -> Entry:
    """Return what sums the entries that at least `threshold` of the masks of the experts at the places `masked` keep.

    Memory: the result, T times the largest parameter, and pieces of a few MB.
    """
    used = used_experts(weights)
    rows = [used.index(place) for place in masked]

    def entry(experts: Experts, name: str) -> "Tensor":
        assert experts.base is not None, "every caller has the base's weights"
        deltas, base = selected(experts, weights), experts.base[name]
        stack_TN, base_N = stacked(deltas, name).view(len(deltas), base.numel()), base.float().reshape(-1)
        lambdas_T1 = stack_TN.new_tensor(lambdas).unsqueeze(1)
        total_N = stack_TN.new_empty(stack_TN.shape[1])
        for piece in column_pieces(stack_TN.shape[1]):
            part, start = stack_TN[:, piece], base_N[piece]
            total = column_sum(part)
            active = _active(part[rows], start, total, lambdas_T1)
            total_N[piece] = total * (active.sum(0) >= threshold)
        return total_N.view(base.shape)

    return entry


def _active(part_TN: "Tensor", base_N: "Tensor", total_N: "Tensor", lambdas_T1: "Tensor") -> "Tensor":
    """Return the TALL masks (T, N) of some experts: 1 where active."""
    import torch

    from_merged_TN = (base_N + total_N) - (base_N + part_TN)
    return where_true(torch.gt, part_TN.abs(), from_merged_TN.abs_().mul_(lambdas_T1))


CONSENSUS = Method(
    "sum of the entries that at least `threshold` TALL masks keep: Consensus (Wang et al., 2024)",
    _consensus,
    parameters=(
        Parameter(
            _LAMBDA, "of the masks, for all experts or one for each in the run's order", 0.4, "float_or_floats", low=0
        ),
        Parameter(
            "threshold", "masks that must keep an entry: 1 or 2, as published; 0 is the plain sum", 2, "int", low=0
        ),
    ),
    check=_check_consensus,
    entrywise=always,
)
TALL_MASK = Method(
    "the sum through one expert's TALL mask, for that expert's task (Wang et al., 2024)",
    _tall_mask,
    parameters=(
        Parameter(_LAMBDA, "of the mask", 0.4, low=0),
        Parameter("expert", "whose mask: its place in the run's order, from 0", 0, "int", low=0),
    ),
    check=_check_tall_mask,
    entrywise=always,
)
