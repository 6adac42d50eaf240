"""Methods by the angle between experts, one parameter at a time: Model Stock, spherical interpolation."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import sum_of
from pipeline.merging.methods.base import (
    Entry,
    Experts,
    Method,
    Params,
    check_count,
    check_selection,
    number,
    selected,
    times,
    used_experts,
)
from pipeline.merging.methods.by_parameter import over_pieces, products
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
    if params["by"] == "tensor":
        return over_pieces(_stock)(experts, weights, params)
    negative = params["negative"] == "keep"
    return lambda experts, name: _stock_by_rows([delta[name] for delta in selected(experts, weights)], negative)


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


def _stock(name: str, experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    """Return the mean of T entries times t = T c / (1 + (T - 1) c), with c their mean cosine over pairs.

    A vector of length 0 has cosine 0. A negative c counts as 0, unless `negative` is "keep": t is derived for angles up
    to 90 degrees, and would otherwise point away from all experts. Where 1 + (T - 1) c is 0, t is 0.
    """
    used = used_experts(weights)
    count = len(used)

    def entries(key: str) -> "list[Tensor]":
        return [delta[key] for delta in selected(experts, weights)]

    t = 1.0 if count == 1 else _shortening(products(entries, experts.deltas[used[0]], count), params)

    def entry(experts: Experts, key: str) -> "Tensor":
        terms = (times(delta, key, 1) for delta in selected(experts, weights))
        return sum_of(terms, into_first=True).mul_(t)

    return entry


def _shortening(products_TT: "Tensor", params: Params) -> float:
    """Return t / T."""
    count, lengths = len(products_TT), products_TT.diagonal().sqrt()
    units = lengths.where(lengths > 0, 1).reciprocal()
    cosines = products_TT * units * units.unsqueeze(1)
    cosine = float(cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
    below = 1 + (count - 1) * cosine
    if (cosine < 0 and params["negative"] != "keep") or abs(below) < _SINGULAR:
        return 0.0
    return cosine / below


def _slerp(name: str, experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    """Interpolate the weights theta0 + tau; return the change, so that equal experts give their task vector."""
    used = used_experts(weights)

    def points(key: str) -> "list[Tensor]":
        assert experts.base is not None, "every caller has the base's weights"
        theta0 = experts.base[key].float()
        return [times(delta, key, 1).add_(theta0) for delta in selected(experts, weights)]

    share_a, share_b = _shares(products(points, experts.deltas[used[0]], 2), number(params, "t"))

    def entry(experts: Experts, key: str) -> "Tensor":
        assert experts.base is not None, "every caller has the base's weights"
        first, second = selected(experts, weights)
        moved = times(first, key, share_a).add_(times(second, key, share_b))
        return moved.add_(experts.base[key].float() * (share_a + share_b - 1))

    return entry


def _shares(products_TT: "Tensor", t: float) -> tuple[float, float]:
    """Return the factors of the point at fraction t of the arc between two, or of the line if they are parallel."""
    lengths = math.sqrt(products_TT[0, 0]) * math.sqrt(products_TT[1, 1])
    cosine = float(products_TT[0, 1]) / lengths if lengths else 1.0
    if abs(cosine) > _PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


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
    by_parameter=lambda params: _stock if params["by"] == "tensor" else None,
    propagates=True,
)
SLERP = Method(
    "spherical interpolation of two experts' weights (Shoemake, 1985)",
    over_pieces(_slerp),
    parameters=(Parameter("t", "0 is the first expert, 1 the second", 0.5, low=0, high=1),),
    check=check_count("slerp", 2),
    whole=True,
    by_parameter=lambda params: _slerp,
    propagates=True,
)
