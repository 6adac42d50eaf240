"""Methods by the angle between experts, one parameter at a time: Model Stock, spherical interpolation."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import sum_of
from pipeline.merging.methods.base import (
    CHOOSE_EXPERTS,
    Experts,
    Method,
    Params,
    check_selection,
    number,
    selected,
    used_experts,
)
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.merging.methods.base import Delta

#: Weights of a greater cosine count as parallel: the sine of their angle is too small to divide by.
_PARALLEL = 0.9995


def _model_stock(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    deltas = selected(experts, weights)
    return {name: _stock([delta[name] for delta in deltas]) for name in deltas[0]}


def _stock(entries: "Sequence[Tensor]") -> "Tensor":
    """Return the mean of N entries times t = N c / (1 + (N - 1) c), with c their mean cosine over pairs.

    The squared length of the sum of unit vectors is N + N (N - 1) c. A vector of length 0 has cosine 0. A negative c
    counts as 0: t is derived for angles up to 90 degrees, and would otherwise point away from all experts.
    """
    count, lengths = len(entries), [_length(entry) for entry in entries]
    total = sum_of(entries)
    units = [entry / length for entry, length in zip(entries, lengths, strict=True) if length]
    if count == 1 or not units:
        return total
    cosine = max(0.0, (_length(sum_of(units)) ** 2 - len(units)) / (count * (count - 1)))
    return total * (cosine / (1 + (count - 1) * cosine))


def _slerp(experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
    """Interpolate the weights theta0 + tau; return the change, so that equal experts give their task vector."""
    assert experts.base is not None, "every caller has the base's weights"
    first, second = selected(experts, weights)
    combined = {}
    for name, base in experts.base.items():
        a, b, theta0 = first[name], second[name], base.float()
        share_a, share_b = _shares(theta0 + a, theta0 + b, number(params, "t"))
        combined[name] = a * share_a + b * share_b + theta0 * (share_a + share_b - 1)
    return combined


def _shares(a: "Tensor", b: "Tensor", t: float) -> tuple[float, float]:
    """Return the factors of the point at fraction t of the arc from a to b, or of the line if they are parallel."""
    lengths = _length(a) * _length(b)
    cosine = float((a.double() * b.double()).sum()) / lengths if lengths else 1.0
    if abs(cosine) > _PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _length(tensor: "Tensor") -> float:
    import torch

    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _check_slerp(weights: Sequence[Number], params: Params) -> None:
    check_selection("slerp")(weights, params)
    if (count := len(used_experts(weights))) != 2:
        raise ValueError(f"method slerp: takes two experts, got {count}: {CHOOSE_EXPERTS}")


MODEL_STOCK = Method(
    "the mean task vector, shortened by the angle between experts: Model Stock (Jang et al., 2024)",
    _model_stock,
    check=check_selection("model_stock"),
    whole=True,
)
SLERP = Method(
    "spherical interpolation of two experts' weights (Shoemake, 1985)",
    _slerp,
    parameters=(Parameter("t", "0 is the first expert, 1 the second", 0.5, low=0, high=1),),
    check=_check_slerp,
    whole=True,
)
