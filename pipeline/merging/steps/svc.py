"""Singular value calibration (Li et al., 2026, arXiv 2602.05536): scale down directions that experts share.

Shape legend: O rows and I columns of a weight, R its singular vectors.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.base import Params, number
from pipeline.merging.steps.base import Apply, Merged, Place, Step
from pipeline.parameters import Parameter

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta


def _prepare(merged: Merged, params: Params) -> Apply:
    floor = number(params, "floor")

    def apply(experts: "Sequence[Delta]", key: str, place: Place, entry: "Tensor") -> "Tensor":
        # What is not finite has no singular values: it stays, and is an error of the rebuild.
        is_matrix = entry.ndim == 2 and entry.numel() > 0 and bool(entry.isfinite().all())
        return _calibrated(entry, [delta[key] for delta in experts], floor) if is_matrix and experts else entry

    return apply


def _calibrated(merged_OI: "Tensor", experts: "Sequence[Tensor]", floor: float) -> "Tensor":
    """Divide each singular value by the mean over the experts of max(floor, s).

    s = <a_merged, a_i> / ||a_i||^2 says how often the merge counts what expert i does in the direction of the singular
    vector u: a_merged = u merged, and a_i = u tau_i.
    """
    import torch

    left_OR, values_R, right_RI = torch.linalg.svd(merged_OI, full_matrices=False)
    total_R = torch.zeros_like(values_R)
    for expert_OI in experts:
        response_RI = left_OR.T @ expert_OI
        squares_R = response_RI.square().sum(1)
        products_R = values_R * (right_RI * response_RI).sum(1)
        total_R += torch.where(squares_R > _rounding(expert_OI), products_R / squares_R, 0.0).clamp_(min=floor)
    calibrated: Tensor = left_OR * (values_R * len(experts) / total_R) @ right_RI
    return calibrated


def _rounding(expert_OI: "Tensor") -> "Tensor":
    """Return the largest square of a response that is 0 within rounding; s would be a ratio of noise there."""
    import torch

    least: Tensor = torch.linalg.vector_norm(expert_OI) * max(expert_OI.shape) * torch.finfo(expert_OI.dtype).eps
    return least.square()


SVC = Step(
    "singular values scaled down in directions that the experts share: SVC (Li et al., 2026)",
    _prepare,
    parameters=(
        Parameter(
            "floor",
            "least count of an expert in a direction, alpha in the paper: with 1 no singular value grows",
            1.0,
            low=0,
            open_low=True,
        ),
    ),
)
