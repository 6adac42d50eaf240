"""Leading singular subspaces of weight updates, and how much those of two experts overlap.

phi(A, B) = (||U_A' U_B||^2 / min(i, j) + ||V_A' V_B||^2 / min(i, j)) / 2 with the Frobenius norm, where U_A, V_A are
the i leading left and right singular vectors of the update of A, and U_B, V_B the j leading ones of B: the similarity
of LoRA's section 7.2 (Hu et al. 2022, equation 4), averaged over both sides. It is the mean squared cosine of the
principal angles: 1 if one subspace contains the other, 0 if they are orthogonal, k / dimension for random ones.

Shape legend: O rows (outputs) of a weight, I its columns (inputs), R rank of its factors, k leading directions, E
experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.merging.low_rank import LowRank

#: Up to this many rows or columns all singular vectors are computed; above, the leading ones by random projections
#: (Halko et al. 2011) with these many more directions and power iterations.
_EXACT, _MORE, _ITERATIONS = 256, 8, 4
#: Singular values below this part of the largest are rounding.
_TINY = 1e-5


@dataclass(frozen=True, slots=True)
class Subspace:
    """The leading singular directions of one matrix.

    Attributes:
        left: (O, k) orthonormal columns.
        right: (I, k) orthonormal columns.
        energy: their share of the squared norm.
    """

    left: Tensor
    right: Tensor
    energy: float


def subspace(update: Tensor | LowRank, rank: int) -> Subspace | None:
    """Return the `rank` leading directions, or as many as the matrix has; None if it is 0.

    Args:
        update: (O, I), float32, or its factors, which are not multiplied.
        rank: at most the smaller side.
    """
    if isinstance(update, LowRank):
        left_OR, b_RR = torch.linalg.qr(update.b)
        right_IR, a_RR = torch.linalg.qr(update.a.T)
        u, values, v = _exact(b_RR @ a_RR.T)
        u, v, total = left_OR @ u, right_IR @ v, float(values.square().sum())
    elif min(update.shape) <= _EXACT:
        u, values, v = _exact(update)
        total = float(values.square().sum())
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, values, v = torch.svd_lowrank(update, rank + _MORE, niter=_ITERATIONS)
        total = float(torch.linalg.vector_norm(update)) ** 2
    kept = min(rank, int((values > _TINY * values[0]).sum()))
    if not kept:
        return None
    return Subspace(u[:, :kept], v[:, :kept], float(values[:kept].square().sum()) / total)


def _exact(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, values, vh.T


def overlaps(spaces: Sequence[Subspace | None]) -> npt.NDArray[np.float64]:
    """Return phi of each pair (E, E); NaN where a matrix is 0."""
    found = np.full((len(spaces), len(spaces)), np.nan)
    for i, a in enumerate(spaces):
        for j, b in enumerate(spaces[: i + 1]):
            if a is not None and b is not None:
                found[i, j] = found[j, i] = _overlap(a, b)
    return found


def _overlap(a: Subspace, b: Subspace) -> float:
    smaller = min(a.left.shape[1], b.left.shape[1])
    sides = ((a.left, b.left), (a.right, b.right))
    return sum(float((x.T @ y).square().sum()) for x, y in sides) / (2 * smaller)
