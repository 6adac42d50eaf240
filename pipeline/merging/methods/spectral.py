"""Methods on the singular values of weight matrices: TSV-M, Iso-C. Parameters other than matrices are averaged.

Shape legend: O rows and I columns of a weight, K singular vectors kept of all experts together.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import sum_of
from pipeline.merging.methods.base import Entry, Experts, Method, Params, Prepare, check_selection, selected
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor


def _of_matrices(combine: "Callable[[list[Tensor]], Tensor]") -> Prepare:
    """Make a method that combines the experts' matrices by `combine`, and averages all other parameters."""

    def parameter(entries: "list[Tensor]") -> "Tensor":
        matrices = entries[0].ndim == 2 and entries[0].numel() > 0
        return combine(entries) if matrices else sum_of(entries) / len(entries)

    def prepare(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
        return lambda experts, name: parameter([delta[name] for delta in selected(experts, weights)])

    return prepare


def _tsvm(matrices: "list[Tensor]") -> "Tensor":
    """Sum each expert's min(O, I) / T leading singular vectors, made orthogonal across experts."""
    import torch

    kept = max(1, min(matrices[0].shape) // len(matrices))
    parts = [_decomposed(matrix_OI, kept) for matrix_OI in matrices]
    left_OK = _nearest_orthogonal(torch.cat([left for left, _, _ in parts], dim=1))
    values_K = torch.cat([values for _, values, _ in parts])
    right_KI = _nearest_orthogonal(torch.cat([right for _, _, right in parts]))
    return left_OK * values_K @ right_KI


def _iso_c(matrices: "list[Tensor]") -> "Tensor":
    """Return the sum with all its singular values set to their mean."""
    left_OK, values_K, right_KI = _decomposed(sum_of(matrices), min(matrices[0].shape))
    return left_OK @ right_KI * (values_K.mean() if len(values_K) else 0.0)


def _decomposed(matrix_OI: "Tensor", most: int) -> "tuple[Tensor, Tensor, Tensor]":
    """Return at most `most` leading singular vectors and values: (O, K), (K,), (K, I).

    Values that are 0 within rounding are left out: their vectors are arbitrary, and a low-rank expert has many.
    """
    import torch

    left, values, right = torch.linalg.svd(matrix_OI, full_matrices=False)
    least = values[0] * max(matrix_OI.shape) * torch.finfo(values.dtype).eps
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
    _of_matrices(_tsvm),
    check=check_selection("tsvm"),
)
ISO_C = Method(
    "sum with equal singular values: Iso-C (Marczak et al., 2025)",
    _of_matrices(_iso_c),
    check=check_selection("iso_c"),
)
