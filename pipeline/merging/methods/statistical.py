"""Methods that weight experts by statistics of their data (`pipeline.learning.statistics`): Fisher, RegMean.

Shape legend: O rows (outputs) of a linear layer's weight, I its columns (inputs).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import mean_of
from pipeline.merging.methods.base import Entry, Experts, Method, Params, check_selection, number, used_experts
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLES = Parameter("samples", "validation images of each expert's task that are used", 256, "int", low=1)
#: Share of the mean diagonal: where no input points, the result is the mean of the experts; nothing else changes.
_RIDGE = 1e-9


def _fisher(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    used = used_experts(weights)
    return lambda experts, name: _weighted_by_fisher(experts, used, name)


def _weighted_by_fisher(experts: Experts, used: Sequence[int], name: str) -> "Tensor":
    """Divide the sum of F tau by the sum of F in float64: F is a squared gradient, and its products leave float32."""
    plain = mean_of(experts, used, name)
    top, bottom = plain.new_zeros(plain.shape).double(), plain.new_zeros(plain.shape).double()
    for place in used:
        fisher = experts.statistics[place][name].to(plain.device).double()
        bottom += fisher
        top += fisher.mul_(experts.deltas[place][name])
    return (top / bottom).float().where(bottom > 0, plain)


def _regmean(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    used, reduce = used_experts(weights), number(params, "reduce")

    def entry(experts: Experts, name: str) -> "Tensor":
        linear = name in experts.statistics[used[0]]
        return _regression(experts, used, name, reduce) if linear else mean_of(experts, used, name)

    return entry


def _regression(experts: Experts, used: Sequence[int], name: str, reduce: float) -> "Tensor":
    """Return the weight whose outputs are nearest to those of every expert on its own inputs (equation 2 of the paper).

    W = (sum_i G_i)^-1 sum_i G_i W_i with W transposed to (I, O), and G_i = X_i^T X_i with its off-diagonal entries
    times `reduce`. The same holds for task vectors, as theta0 is common to all. Solved in float64.
    """
    import torch

    plain_OI = mean_of(experts, used, name)
    total_II = plain_OI.new_zeros(plain_OI.shape[1], plain_OI.shape[1], dtype=torch.float64)
    right_IO = plain_OI.new_zeros(plain_OI.T.shape, dtype=torch.float64)
    for place in used:
        gram_II = experts.statistics[place][name].to(total_II)
        gram_II = reduce * gram_II + (1 - reduce) * gram_II.diagonal().diag()
        total_II += gram_II
        right_IO += gram_II @ experts.deltas[place][name].T.double()
    ridge = _RIDGE * total_II.diagonal().mean()
    if ridge == 0:
        return plain_OI
    total_II.diagonal().add_(ridge)
    right_IO += ridge * plain_OI.T
    solved_IO: Tensor = torch.linalg.solve(total_II, right_IO)
    return solved_IO.T.float().contiguous()


FISHER = Method(
    "mean weighted by each expert's diagonal Fisher information (Matena & Raffel, 2022)",
    _fisher,
    parameters=(_SAMPLES,),
    check=check_selection("fisher"),
    needs="fisher",
    whole=True,
)
_REDUCE = Parameter("reduce", "factor of the off-diagonal entries of the inputs' products", 0.9, low=0, high=1)
REGMEAN = Method(
    "linear layers whose outputs are nearest to every expert's, by least squares: RegMean (Jin et al., 2023)",
    _regmean,
    parameters=(_SAMPLES, _REDUCE),
    check=check_selection("regmean"),
    needs="gram",
    whole=True,
)
REGMEAN_PP = Method(
    "RegMean on the inputs that the merged blocks before a block give: RegMean++ (Nguyen et al., 2025)",
    _regmean,
    parameters=(_SAMPLES, _REDUCE),
    check=check_selection("regmean_pp"),
    needs="merged_gram",
    whole=True,
)
