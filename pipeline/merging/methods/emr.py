"""EMR-Merging: one unified vector, and for each expert a mask and a factor (Huang et al., 2024).

Follows the authors' code. Shape legend: T experts that take part.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import stacked, where_true
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
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


def _prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    row = used_experts(weights).index(int(number(params, "expert")))

    def masked(experts: Experts, name: str) -> "tuple[Tensor, Tensor]":
        stack = stacked(selected(experts, weights), name)
        return stack[row], _masked(stack, row)

    means = [[_mean(entry) for entry in masked(experts, name)] for name in experts.deltas[0]]
    own, unified = (math.fsum(column) for column in zip(*means, strict=True))
    factor = own / unified if unified else 0.0
    return lambda experts, name: masked(experts, name)[1] * factor


def _masked(stack: "Tensor", row: int) -> "Tensor":
    """Return the unified vector where one expert has its sign: the elected one, with the largest entry that has it.

    The sign is that of the sum over experts; minus where it is 0.
    """
    import torch

    sign = where_true(torch.gt, stack.sum(0), 0) * 2 - 1
    unified = (stack * sign).clamp(min=0).amax(0) * sign
    return unified * where_true(torch.gt, stack[row] * sign, 0)


def _mean(entry: "Tensor") -> float:
    return float(entry.abs().double().mean()) if entry.numel() else 0.0


def _check(weights: Sequence[Number], params: Params) -> None:
    check_selection("emr")(weights, params)
    check_expert(weights, params)


EMR = Method(
    "elected entries through one expert's mask, as large as its own, for that expert's task: EMR (Huang et al., 2024)",
    _prepare,
    parameters=(Parameter("expert", "whose mask and factor: its place in the run's order, from 0", 0, "int", low=0),),
    check=_check,
    whole=True,
)
