"""Methods by the angle between experts, one parameter at a time: Model Stock, spherical interpolation."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import sum_of
from pipeline.merging.methods.base import (
    CHOOSE_EXPERTS,
    Entry,
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

#: Weights of a greater cosine count as parallel: the sine of their angle is too small to divide by.
_PARALLEL = 0.9995
#: Denominators of Model Stock that count as 0.
_SINGULAR = 1e-6
_BY = ("tensor", "rows")


def _model_stock(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    negative = params["negative"] == "keep"
    stock = _stock_by_rows if params["by"] == "rows" else _stock
    return lambda experts, name: stock([delta[name] for delta in selected(experts, weights)], negative)


def _stock_by_rows(entries: "Sequence[Tensor]", negative: bool) -> "Tensor":
    """Compute each vector along the last dimension as `_stock` does a parameter: mergekit's `filter_wise`."""
    import torch

    def lengths(entry: "Tensor") -> "Tensor":
        found: Tensor = torch.linalg.vector_norm(entry, dim=-1, keepdim=True, dtype=torch.float64)
        return found

    count, total = len(entries), sum_of(entries)
    if count == 1:
        return total
    each = [lengths(entry) for entry in entries]
    units = sum_of(e / length.where(length > 0, 1) for e, length in zip(entries, each, strict=True))
    cosine = (lengths(units) ** 2 - sum_of((length > 0).double() for length in each)) / (count * (count - 1))
    below = 1 + (count - 1) * cosine
    none = (below.abs() < _SINGULAR) | ((cosine < 0) & (not negative))
    return total * torch.where(none, 0, cosine / below.where(~none, 1)).float()


def _stock(entries: "Sequence[Tensor]", negative: bool) -> "Tensor":
    """Return the mean of N entries times t = N c / (1 + (N - 1) c), with c their mean cosine over pairs.

    The squared length of the sum of unit vectors is N + N (N - 1) c. A vector of length 0 has cosine 0. A negative c
    counts as 0, unless `negative`: t is derived for angles up to 90 degrees, and would otherwise point away from all
    experts. Where 1 + (N - 1) c is 0, t is 0.
    """
    count, lengths = len(entries), [_length(entry) for entry in entries]
    total = sum_of(entries)
    units = [entry / length for entry, length in zip(entries, lengths, strict=True) if length]
    if count == 1 or not units:
        return total
    cosine = (_length(sum_of(units)) ** 2 - len(units)) / (count * (count - 1))
    below = 1 + (count - 1) * cosine
    if (cosine < 0 and not negative) or abs(below) < _SINGULAR:
        return total * 0
    return total * (cosine / below)


def _slerp(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    """Interpolate the weights theta0 + tau; return the change, so that equal experts give their task vector."""

    def entry(experts: Experts, name: str) -> "Tensor":
        assert experts.base is not None, "every caller has the base's weights"
        (a, b), theta0 = (delta[name] for delta in selected(experts, weights)), experts.base[name].float()
        share_a, share_b = _shares(theta0 + a, theta0 + b, number(params, "t"))
        return a * share_a + b * share_b + theta0 * (share_a + share_b - 1)

    return entry


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
    parameters=(
        Parameter("by", "what has an angle: each parameter, or each of its rows", "tensor", "choice", choices=_BY),
        Parameter(
            "negative",
            "whether a negative mean cosine counts as 0, or is kept as in mergekit",
            "zero",
            "choice",
            choices=("zero", "keep"),
        ),
    ),
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
