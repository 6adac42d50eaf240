"""Low-rank task vectors, kept as the factors of LoRA adapters (Hu et al., 2022) and multiplied only when read.

Shape legend: O rows (outputs) of a weight, I its columns (inputs), R rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from pipeline.merging.lazy_tensors import LazyTensors
from pipeline.merging.methods.base import Method, Params
from pipeline.recipe import Number


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change b @ a of one weight, float32.

    Attributes:
        b: (O, R), times the adapter's scale.
        a: (R, I).
    """

    b: Tensor
    a: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape (O, I) of the weight."""
        return torch.Size((self.b.shape[0], self.a.shape[1]))

    def dense(self, out: Tensor | None = None) -> Tensor:
        """Multiply the factors: shape (O, I), written to `out` if given."""
        return torch.mm(self.b, self.a, out=out)

    def to(self, device: torch.device) -> "LowRank":
        """Move the factors to `device`."""
        return LowRank(self.b.to(device), self.a.to(device))


class LowRankDelta(LazyTensors):
    """A task vector by parameter name; an entry is multiplied each time it is read, and 0 if it has no factors."""

    def __init__(
        self, factors: Mapping[str, LowRank], shapes: Mapping[str, torch.Size], device: torch.device | str = "cpu"
    ) -> None:
        """Take the factors of some parameters, on `device`, and the shapes of all.

        Raises:
            ValueError: if a parameter is unknown, or its factors give another shape.
        """
        for name, factor in factors.items():
            if shapes.get(name) != factor.shape:
                expected = tuple(shapes[name]) if name in shapes else "a parameter of the model"
                raise ValueError(f"{name}: its factors must give {expected}, got {tuple(factor.shape)}")
        self.factors, self.shapes, self.device = dict(factors), dict(shapes), torch.device(device)
        super().__init__(self.shapes)

    def __getitem__(self, name: str) -> Tensor:
        """Compute a dense entry, a new float32 tensor."""
        if name in self.factors:
            return self.factors[name].dense()
        return torch.zeros(self.shapes[name], device=self.device)

    @property
    def numel(self) -> int:
        """Number of elements in memory, which are those of the factors."""
        return sum(factor.a.numel() + factor.b.numel() for factor in self.factors.values())

    def to(self, device: torch.device) -> "LowRankDelta":
        """Move the factors to `device`."""
        return LowRankDelta({name: f.to(device) for name, f in self.factors.items()}, self.shapes, device)


def stacked(factors: Sequence[LowRank]) -> LowRank:
    """Return the factors of a sum of changes of one weight: [b1 | b2 | ...] and [a1; a2; ...]."""
    if len(factors) == 1:
        return factors[0]
    return LowRank(torch.cat([f.b for f in factors], dim=1), torch.cat([f.a for f in factors]))


def entry_of_sum(deltas: Sequence[LowRankDelta], name: str) -> Tensor:
    """Compute a dense entry of the plain sum by one product; a product for each would write as many tensors."""
    factors = [delta.factors[name] for delta in deltas if name in delta.factors]
    return stacked(factors).dense() if factors else deltas[0][name]


def low_rank_sum(deltas: Sequence[LowRankDelta], shares: Sequence[Number]) -> LowRankDelta:
    """Sum share times task vector; the ranks add up, and a single vector with share 1 is returned as it is.

    Args:
        deltas: at least one, over the same parameters.
        shares: one for each; a share of 0 leaves its task vector out.
    """
    used = [(delta, share) for delta, share in zip(deltas, shares, strict=True) if share]
    if len(used) == 1 and used[0][1] == 1:
        return used[0][0]
    factors: dict[str, list[LowRank]] = {}
    for delta, share in used:
        for name, factor in delta.factors.items():
            factors.setdefault(name, []).append(LowRank(factor.b * share, factor.a))
    return LowRankDelta({name: stacked(f) for name, f in factors.items()}, deltas[0].shapes, deltas[0].device)


def combine_low_rank(
    method: Method, deltas: Sequence[Mapping[str, Tensor]], weights: Sequence[Number], params: Params
) -> LowRankDelta | None:
    """Combine low-rank task vectors to factors; None if the result must be, or is better, dense.

    The result stays low-rank if the method is a sum of shares, every used expert is low-rank, and their factors
    together are smaller than the model.
    """
    if method.shares is None:
        return None
    shares = method.shares(weights, params)
    used = [(delta, share) for delta, share in zip(deltas, shares, strict=True) if share]
    low = [delta for delta, _ in used if isinstance(delta, LowRankDelta)]
    if not low or len(low) < len(used) or sum(d.numel for d in low) > sum(map(prod, low[0].shapes.values())):
        return None
    return low_rank_sum(low, [share for _, share in used])
