"""Small task vectors, and a method that combines them as in a run."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.parameters import resolve


def combine(name: str, experts: Experts, weights: Sequence[float] = (), **params: object) -> Mapping[str, Tensor]:
    """Return the combined vector; weights are 1 if not given, and parameters have their defaults."""
    method = METHODS[name]
    used = weights or (1,) * len(experts.deltas)
    resolved = resolve(method.parameters, params)  # type: ignore[arg-type]
    method.check(used, resolved)
    return method.combine(experts, used, resolved)


def experts_of(rows: Sequence[Sequence[float]], base: Sequence[float] | None = None) -> Experts:
    """Return experts of one parameter "w", one row each."""
    theta0 = torch.tensor(base) if base else torch.zeros(len(rows[0]))
    return Experts([{"w": torch.tensor(row)} for row in rows], {"w": theta0})


def random_experts(count: int, seed: int = 0, **shapes: tuple[int, ...]) -> Experts:
    """Return experts of random parameters with these names and shapes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(scale: float) -> dict[str, Tensor]:
        return {n: scale * torch.randn(shape, generator=generator) for n, shape in shapes.items()}

    return Experts([draw(0.01) for _ in range(count)], draw(0.1))
