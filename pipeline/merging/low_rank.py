"""Task vectors of low rank, held as the factors of LoRA adapters (Hu et al., 2022) and multiplied only when read.

Shape legend: O rows (outputs) of a weight, I its columns (inputs), R rank.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from pipeline.merging.methods.base import Method, Params
from pipeline.recipe import Number


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change b @ a of one weight, float32.

    Attributes:
        b: (O, R), with the adapter's scale in it.
        a: (R, I).
    """

    b: Tensor
    a: Tensor

    @property
    def shape(self) -> torch.Size:
        """(O, I), of the weight."""
        return torch.Size((self.b.shape[0], self.a.shape[1]))

    def dense(self, out: Tensor | None = None) -> Tensor:
        """The product of shape (O, I), written to `out` where given."""
        return torch.mm(self.b, self.a, out=out)

    def to(self, device: torch.device) -> "LowRank":
        """The same factors on `device`."""
        return LowRank(self.b.to(device), self.a.to(device))


class LowRankDelta(Mapping[str, Tensor]):
    """A task vector by parameter name: an entry is made dense each time it is read; it is 0 where it has no factors."""

    def __init__(
        self, factors: Mapping[str, LowRank], shapes: Mapping[str, torch.Size], device: torch.device | str = "cpu"
    ) -> None:
        """Take the factors of some parameters, on `device`, and the shapes of all.

        Raises:
            ValueError: factors of an unknown parameter, or of another shape.
        """
        for name, factor in factors.items():
            if shapes.get(name) != factor.shape:
                expected = tuple(shapes[name]) if name in shapes else "a parameter of the model"
                raise ValueError(f"{name}: its factors must give {expected}, got {tuple(factor.shape)}")
        self.factors, self.shapes, self.device = dict(factors), dict(shapes), torch.device(device)

    def __getitem__(self, name: str) -> Tensor:
        """The dense entry, float32, new each time."""
        if name in self.factors:
            return self.factors[name].dense()
        return torch.zeros(self.shapes[name], device=self.device)

    def __contains__(self, name: object) -> bool:
        """Whether it is a parameter; Mapping's own way would make the entry dense."""
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        """Names of all parameters, with factors or without."""
        return iter(self.shapes)

    def __len__(self) -> int:
        """Number of parameters."""
        return len(self.shapes)

    @property
    def numel(self) -> int:
        """Elements held: those of the factors."""
        return sum(factor.a.numel() + factor.b.numel() for factor in self.factors.values())

    def to(self, device: torch.device) -> "LowRankDelta":
        """The same vector with its factors on `device`."""
        return LowRankDelta({name: f.to(device) for name, f in self.factors.items()}, self.shapes, device)


def stacked(factors: Sequence[LowRank]) -> LowRank:
    """The factors of the sum of changes of one weight: [b1 | b2 | ...] and [a1; a2; ...]."""
    if len(factors) == 1:
        return factors[0]
    return LowRank(torch.cat([f.b for f in factors], dim=1), torch.cat([f.a for f in factors]))


def entry_of_sum(deltas: Sequence[LowRankDelta], name: str) -> Tensor:
    """The dense entry of the plain sum: one product, where a product for each would write as many tensors."""
    factors = [delta.factors[name] for delta in deltas if name in delta.factors]
    return stacked(factors).dense() if factors else deltas[0][name]


def low_rank_sum(deltas: Sequence[LowRankDelta], shares: Sequence[Number]) -> LowRankDelta:
    """Sum of share times task vector, of the sum of their ranks; one alone with share 1 is returned as it is.

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
    """What `method` gives, as factors; None where it must be, or had better be, made dense.

    It stays low-rank where the method is a sum of shares, every used expert is low-rank, and all their factors together
    are smaller than the model.
    """
    if method.shares is None:
        return None
    shares = method.shares(weights, params)
    used = [(delta, share) for delta, share in zip(deltas, shares, strict=True) if share]
    low = [delta for delta, _ in used if isinstance(delta, LowRankDelta)]
    if not low or len(low) < len(used) or sum(d.numel for d in low) > sum(map(prod, low[0].shapes.values())):
        return None
    return low_rank_sum(low, [share for _, share in used])
