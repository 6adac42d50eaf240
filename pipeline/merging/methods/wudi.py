"""WUDI-Merging: the matrix that interferes least with every expert's, by gradient descent without data.

Shape legend: T experts that take part, O rows (outputs) of a weight, I its columns (inputs).
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import sum_of
from pipeline.merging.methods.base import Method, Params, check_selection, number
from pipeline.merging.methods.spectral import of_matrices
from pipeline.parameters import Parameter

if TYPE_CHECKING:
    from torch import Tensor

#: Of Adam: torch's defaults, as in the authors' code.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


def _wudi(matrices: "list[Tensor]", params: Params) -> "Tensor":
    """Lower sum_i ||(tau - tau_i) tau_i^T||^2 / ||tau_i||^2 by Adam, from tau = sum_i tau_i (the paper's loss).

    Its gradient is tau A - B with A = sum_i 2 tau_i^T tau_i / ||tau_i||^2 and B = sum_i 2 tau_i tau_i^T tau_i /
    ||tau_i||^2, so that a step takes one product for any number of experts.
    """
    squares = [float(matrix_OI.double().square().sum()) for matrix_OI in matrices]
    terms = [(m, m * (2 / square)) for m, square in zip(matrices, squares, strict=True) if square]
    merged_OI = sum_of(matrices)
    if not terms:
        return merged_OI
    quadratic_II = sum_of(scaled.T @ matrix for matrix, scaled in terms)
    linear_OI = sum_of(scaled @ (matrix.T @ matrix) for matrix, scaled in terms)
    _adam(merged_OI, lambda: merged_OI @ quadratic_II - linear_OI, int(number(params, "steps")), number(params, "lr"))
    return merged_OI


def _adam(weight: "Tensor", gradient: "Callable[[], Tensor]", steps: int, rate: float) -> None:
    """Update a weight in place by Adam (Kingma & Ba, 2015); the first step of torch's own takes 7 s of imports."""
    import torch

    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, steps + 1):
        slope = gradient()
        mean.lerp_(slope, 1 - _BETA_1)
        square.mul_(_BETA_2).addcmul_(slope, slope, value=1 - _BETA_2)
        size = (square.sqrt() / math.sqrt(1 - _BETA_2**step)).add_(_EPSILON)
        weight.addcdiv_(mean, size, value=-rate / (1 - _BETA_1**step))


WUDI = Method(
    "matrices that interfere least with the experts', by gradient descent: WUDI-Merging (Cheng et al., 2025)",
    of_matrices(_wudi, average=False),
    parameters=(
        Parameter("steps", "updates of Adam", 300, "int", low=1),
        Parameter("lr", "learning rate of Adam, in units of the weights", 1e-5, low=0, open_low=True),
    ),
    check=check_selection("wudi"),
    whole=True,
)
