"""Methods on the singular values of weight matrices: TSV-M, Iso-C, Iso-CTS. All other parameters are averaged.

Shape legend: O rows and I columns of a weight, K singular vectors kept of all experts together.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import sum_of
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
    Prepare,
    check_selection,
    number,
    selected,
)
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor


def of_matrices(combine: "Callable[[list[Tensor], Params], Tensor]", average: bool = True) -> Prepare:
    """Make a method that combines the experts' matrices by `combine`.

    All other parameters are averaged, or else stay those of the base.
    """

    def parameter(entries: "list[Tensor]", params: Params) -> "Tensor":
        if entries[0].ndim == 2 and entries[0].numel() > 0:
            return combine(entries, params)
        return sum_of(entries) / len(entries) if average else entries[0].new_zeros(entries[0].shape)

    def prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
        return lambda experts, name: parameter([delta[name] for delta in selected(experts, weights)], params)

    return prepare


def _tsvm(matrices: "list[Tensor]", params: Params) -> "Tensor":
    """Sum each expert's min(O, I) / T leading singular vectors, made orthogonal across experts."""
    import torch

    kept = max(1, min(matrices[0].shape) // len(matrices))
    parts = [_decomposed(matrix_OI, kept) for matrix_OI in matrices]
    left_OK = _nearest_orthogonal(torch.cat([left for left, _, _ in parts], dim=1))
    values_K = torch.cat([values for _, values, _ in parts])
    right_KI = _nearest_orthogonal(torch.cat([right for _, _, right in parts]))
    return left_OK * values_K @ right_KI


def _iso_c(matrices: "list[Tensor]", params: Params) -> "Tensor":
    """Return the sum with all its singular values set to their mean."""
    left_OK, values_K, right_KI = _decomposed(sum_of(matrices), min(matrices[0].shape))
    return left_OK @ right_KI * _mean(values_K)


def _iso_cts(matrices: "list[Tensor]", params: Params) -> "Tensor":
    """Return the leading directions of the sum, and of each expert outside these, with equal singular values.

    Vectors of all parts are replaced by the nearest orthogonal ones, and values by their mean.
    """
    import torch

    common, own = _ranks(min(matrices[0].shape), len(matrices), number(params, "common"))
    parts = [_decomposed(sum_of(matrices), common)]
    shared_OC = parts[0][0]
    for matrix_OI in matrices:
        rest_OI = matrix_OI - shared_OC @ (shared_OC.T @ matrix_OI)
        parts.append(_decomposed(rest_OI, own, scale=float(torch.linalg.vector_norm(matrix_OI))))
    left_OK = _nearest_orthogonal(torch.cat([left for left, _, _ in parts], dim=1))
    right_KI = _nearest_orthogonal(torch.cat([right for _, _, right in parts]))
    return left_OK @ right_KI * _mean(torch.cat([values for _, values, _ in parts]))


def _ranks(whole: int, experts: int, share: float) -> tuple[int, int]:
    """Return the ranks of the common part and of each expert's own: experts' are equal, and all add up to `whole`."""
    own = min(round((whole - int(whole * share)) / experts), whole // experts)
    return whole - own * experts, own


def _mean(values_K: "Tensor") -> float:
    return float(values_K.mean()) if len(values_K) else 0.0


def _decomposed(matrix_OI: "Tensor", most: int, scale: float | None = None) -> "tuple[Tensor, Tensor, Tensor]":
    """Return at most `most` leading singular vectors and values: (O, K), (K,), (K, I).

    Values that are 0 within rounding are left out: their vectors are arbitrary, and a low-rank expert has many. `scale`
    is the norm of what was rounded, if not the matrix itself.
    """
    import torch

    left, values, right = torch.linalg.svd(matrix_OI, full_matrices=False)
    least = (values[0] if scale is None else scale) * max(matrix_OI.shape) * torch.finfo(values.dtype).eps
    kept = min(most, int((values > least).sum()))
    return left[:, :kept], values[:kept], right[:kept]


def _nearest_orthogonal(matrix: "Tensor") -> "Tensor":
    """Return the nearest matrix with orthonormal rows or columns: P Q of the decomposition P D Q (Procrustes)."""
    import torch

    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    nearest: Tensor = left @ right
    return nearest


TSVM = Method(
    "sum of each expert's leading singular vectors, made orthogonal across experts: TSV-M (Gargiulo et al., 2025)",
    of_matrices(_tsvm),
    check=check_selection("tsvm"),
)
ISO_C = Method(
    "sum with equal singular values: Iso-C (Marczak et al., 2025)",
    of_matrices(_iso_c),
    check=check_selection("iso_c"),
)
ISO_CTS = Method(
    "the sum's and each expert's own directions with equal singular values: Iso-CTS (Marczak et al., 2025)",
    of_matrices(_iso_cts),
    parameters=(
        Parameter("common", "share of a matrix's rank that the leading directions of the sum have", 0.8, low=0, high=1),
    ),
    check=check_selection("iso_cts"),
)
