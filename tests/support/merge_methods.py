"""Combine task vectors by a method, as a run does."""

from collections.abc import Mapping, Sequence

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
