"""Means on a sphere, one parameter at a time: nuslerp, multislerp, Karcher mean.

Each result is a sum of coefficients times inputs, and the coefficients follow from lengths and products of the inputs
alone. Shape legend: T experts that take part.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.merging.methods.aggregation import aggregate, sum_of
from pipeline.merging.methods.base import (
    CHOOSE_EXPERTS,
    Entry,
    Experts,
    Method,
    Params,
    check_selection,
    check_some,
    number,
    times,
    used_experts,
)
from pipeline.merging.methods.by_parameter import over_pieces, products
from pipeline.parameters import Parameter
from pipeline.recipe import Number

if TYPE_CHECKING:
    from torch import Tensor

#: Weights of a smaller sum count as equal (nuslerp) or as balanced (multislerp).
_NO_SUM = 1e-6
#: Squared sines of smaller angles count as 0: the vectors are parallel.
_PARALLEL = 1e-16
#: Sums of coefficients this near to 1 are 1: float64 rounds them.
_ROUNDING = 1e-12


def _points(experts: Experts, used: Sequence[int], name: str, between: str) -> "list[Tensor]":
    """Return what is interpolated: task vectors, or weights theta0 + tau; flat."""
    if between == "changes":
        return [experts.deltas[place][name].reshape(-1) for place in used]
    assert experts.base is not None, "every caller has the base's weights"
    theta0 = experts.base[name].float().reshape(-1)
    return [times(experts.deltas[place], name, 1).reshape(-1).add_(theta0) for place in used]


def _combined(
    experts: Experts, used: Sequence[int], name: str, coefficients: Sequence[float], between: str
) -> "Tensor":
    """Return the task vector of sum_i c_i point_i: for weights, theta0 is left over if the c_i do not sum to 1."""
    terms = (times(experts.deltas[place], name, c) for place, c in zip(used, coefficients, strict=True))
    total = sum_of(terms, into_first=True)
    left = math.fsum(coefficients) - 1
    if between == "changes" or abs(left) < _ROUNDING:
        return total
    assert experts.base is not None, "every caller has the base's weights"
    return total.add_(experts.base[name].float() * left)


def _nuslerp(experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    """Interpolate each vector of a parameter; one number is a vector."""
    if params["by"] == "tensor":
        return over_pieces(_arc)(experts, weights, params)
    used, whole = used_experts(weights), over_pieces(_arc)(experts, weights, params)

    def entry(experts: Experts, name: str) -> "Tensor":
        entries = [experts.deltas[place][name] for place in used]
        if len(used) == 1 or not entries[0].dim():
            return whole(experts, name)
        return _arcs(experts, entries, name, _fraction(weights), params)

    return entry


def _fraction(weights: Sequence[Number]) -> float:
    first, second = (float(weights[place]) for place in used_experts(weights))
    return 0.5 if abs(first + second) < _NO_SUM else second / (first + second)


def _arc(name: str, experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    """Interpolate a parameter as one vector."""
    used, between = used_experts(weights), str(params["between"])
    if len(used) == 1:
        return lambda experts, key: experts.deltas[used[0]][key]
    products_TT = _products(experts, used, between)
    lengths = products_TT.diagonal().sqrt().prod()
    cosine = products_TT[0, 1] / lengths.where(lengths > 0, 1)
    shares = [float(share) for share in _shares(cosine, _fraction(weights))]
    return lambda experts, key: _combined(experts, used, key, shares, between)


def _arcs(experts: Experts, entries: "Sequence[Tensor]", name: str, t: float, params: Params) -> "Tensor":
    """Interpolate each pair of rows or columns of two entries."""
    import torch

    dim, base = (-1 if params["by"] == "rows" else 0), None
    points = list(entries)
    if params["between"] != "changes":
        assert experts.base is not None, "every caller has the base's weights"
        base = experts.base[name].float()
        points = [base + entry for entry in entries]
    lengths = [torch.linalg.vector_norm(p, dim=dim, keepdim=True, dtype=torch.float64) for p in points]
    units = [p / length.where(length > 0, 1) for p, length in zip(points, lengths, strict=True)]
    shares = _shares((units[0] * units[1]).sum(dim=dim, keepdim=True), t)
    total = entries[0] * shares[0].float() + entries[1] * shares[1].float()
    return total if base is None else total + base * (shares[0] + shares[1] - 1).float()


def _shares(cosine: "Tensor", t: float) -> "list[Tensor]":
    """Return the factors of the points at fraction t of arcs with these cosines."""
    import torch

    cosine = cosine.clamp(-1, 1)
    parallel = 1 - cosine.square() <= _PARALLEL
    angle = cosine.where(~parallel, 0).acos()
    return [torch.where(parallel, s, (s * angle).sin() / angle.sin()) for s in (1 - t, t)]


def _products(experts: Experts, used: Sequence[int], between: str) -> "Tensor":
    return products(lambda key: _points(experts, used, key, between), experts.deltas[used[0]], len(used))


def _multislerp(name: str, experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    used, between = used_experts(weights), str(params["between"])
    given = [float(weights[place]) for place in used]
    shares = [w / math.fsum(given) for w in given] if params["aggregate"] == "mean" else given
    coefficients = _on_sphere(_products(experts, used, between), shares, name)
    return lambda experts, key: _combined(experts, used, key, coefficients, between)


def _on_sphere(products: "Tensor", shares: Sequence[float], name: str) -> list[float]:
    """Return c_i of the mean direction, sum of share times unit vector, at the mean length, sum of share times length.

    mergekit's step along the tangent at this mean is 0 by definition: projected there, weighted unit vectors cancel.
    """
    lengths = products.diagonal().sqrt()
    factors = lengths.new_tensor(shares) / lengths.where(lengths > 0, 1) * (lengths > 0)
    size = math.sqrt(max(0.0, float(factors @ products @ factors)))
    if size > _NO_SUM:
        return [float(f) for f in factors * (float(lengths @ lengths.new_tensor(shares)) / size)]
    if len(shares) > 2 and bool(lengths.any()):
        raise ValueError(f"method multislerp: the experts' directions in {name} cancel out: choose other weights")
    return list(shares)


def _karcher(name: str, experts: Experts, weights: Sequence[Number], params: Params) -> Entry:
    used, iterations, tolerance = used_experts(weights), int(number(params, "max_iter")), number(params, "tol")
    coefficients = _karcher_mean(_products(experts, used, "weights"), iterations, tolerance)
    return lambda experts, key: _combined(experts, used, key, coefficients, "weights")


def _karcher_mean(products: "Tensor", iterations: int, tolerance: float) -> list[float]:
    """Return the c_i of the mean direction on the sphere, by gradient descent, at the mean length.

    Coordinates are those of the unit vectors of all inputs that are not 0. Inputs have equal shares.
    """
    import torch

    lengths = products.diagonal().sqrt()
    place = lengths.nonzero().flatten()
    coefficients = torch.zeros_like(lengths)
    if not len(place):
        return coefficients.tolist()
    cosines = products[place][:, place] / (lengths[place].unsqueeze(1) * lengths[place])
    mean = torch.full_like(lengths[place], 1 / len(place))
    mean = mean / _size(mean, cosines) if _size(mean, cosines) >= tolerance else torch.eye(len(place)).double()[0]
    for _ in range(iterations):
        dots = (cosines @ mean).clamp(-1, 1)
        angles = dots.acos()
        steps = torch.where(angles < tolerance, 0, angles / angles.sin().where(angles >= tolerance, 1)) / len(place)
        tangent = steps - float(steps @ dots) * mean
        if (size := _size(tangent, cosines)) < tolerance:
            break
        mean = math.cos(size) * mean + math.sin(size) / size * tangent
        mean = mean / _size(mean, cosines)
    coefficients[place] = mean / lengths[place] * float(lengths.mean())
    return coefficients.tolist()


def _size(coordinates: "Tensor", cosines: "Tensor") -> float:
    return math.sqrt(max(0.0, float(coordinates @ cosines @ coordinates)))


def _check_nuslerp(weights: Sequence[Number], params: Params) -> None:
    check_some("nuslerp")(weights, params)
    if (count := len(used_experts(weights))) > 2 or len(weights) < 2:
        raise ValueError(f"method nuslerp: takes two experts, got {count}: {CHOOSE_EXPERTS}")


def _check_multislerp(weights: Sequence[Number], params: Params) -> None:
    check_some("multislerp")(weights, params)
    if params["aggregate"] == "mean" and abs(math.fsum(weights)) < _NO_SUM:
        raise ValueError(f"method multislerp: weights of a mean must not add up to 0, got {list(weights)}")


def _between(default: str) -> Parameter:
    doc = "what is interpolated: the changes from the base, or the weights"
    return Parameter("between", doc, default, "choice", choices=("changes", "weights"))


NUSLERP = Method(
    "spherical interpolation of two experts by their weights: NuSLERP of mergekit",
    _nuslerp,
    parameters=(
        _between("changes"),
        Parameter(
            "by",
            "what has an angle: each parameter, or each of its rows or columns",
            "tensor",
            "choice",
            choices=("tensor", "rows", "columns"),
        ),
    ),
    check=_check_nuslerp,
    whole=True,
    by_parameter=lambda params: _arc if params["by"] == "tensor" else None,
    propagates=True,
)
MULTISLERP = Method(
    "mean direction and mean length of any number of experts: Multi-SLERP of mergekit",
    over_pieces(_multislerp),
    parameters=(_between("changes"), aggregate("mean")),
    check=_check_multislerp,
    whole=True,
    by_parameter=lambda params: _multislerp,
    propagates=True,
)
KARCHER = Method(
    "Riemannian mean of the experts' weights on the sphere: Karcher mean",
    over_pieces(_karcher),
    parameters=(
        Parameter("max_iter", "steps at most", 10, "int", low=1, high=10_000),
        Parameter("tol", "length of the last step, and angles that count as 0", 1e-5, low=0, open_low=True),
    ),
    check=check_selection("karcher"),
    whole=True,
    by_parameter=lambda params: _karcher,
    propagates=True,
)
