"""The exact k-th largest magnitude of a whole task vector, without a copy in one piece."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

#: Elements processed together: their scratch stays in the cache.
PIECE = 1 << 18
_HALF = 16


def kth_largest_magnitude(tensors: Mapping[str, Tensor], k: int) -> float:
    """Return the exact k-th largest |x| over all entries of all tensors.

    The bits of a non-negative float order as the float does, so two histograms find it: one of the upper 16 bits of all
    entries, then one of the lower 16 bits of those that share the upper bits of the answer. Each tensor is read twice.
    Memory: the tensor being read, two histograms of 65,536 counts, and 5 MB of scratch, for any size and number of
    tensors; `torch.kthvalue` over the flattened vector takes several times the vector.

    Args:
        tensors: float32 and finite, on any device.
        k: 1 for the largest.

    Raises:
        ValueError: if k is below 1 or above the number of entries.
    """
    upper = torch.zeros(1 << (_HALF - 1), dtype=torch.int64)
    for bits in _pieces(tensors):
        upper += torch.bincount(bits >> _HALF, minlength=upper.numel()).cpu()
    total = int(upper.sum())
    if not 1 <= k <= total:
        raise ValueError(f"k: must be from 1 to the {total} entries, got {k}")
    high, above = _bin_of(upper, k)
    lower = torch.zeros(1 << _HALF, dtype=torch.int64)
    for bits in _pieces(tensors):
        lower += torch.bincount(bits[bits >> _HALF == high] & 0xFFFF, minlength=lower.numel()).cpu()
    low, _ = _bin_of(lower, k - above)
    return torch.tensor(high << _HALF | low, dtype=torch.int32).view(torch.float32).item()


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Yield the bits of |x| as int32, piece by piece."""
    for tensor in tensors.values():
        for piece in torch.split(tensor.detach().reshape(-1), PIECE):
            yield piece.abs().view(torch.int32)


def _bin_of(counts: Tensor, k: int) -> tuple[int, int]:
    """Return the bin of the k-th entry counted from the highest bin, and the number of entries in the bins above it."""
    from_above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_above, k))
    return counts.numel() - 1 - place, int(from_above[place - 1]) if place else 0
