"""Functions of depth: lambda(d) = alpha + beta * f(d) in the blocks, alpha outside (equation 1, appendices A and C.3).

Free of torch, so that specs, reports and head nodes can use it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.parameters import Parameter, look_up, resolve
from pipeline.recipe import ParamValue, Recipe, canonical_number
from tasks.registry import near

#: Controls go in front of a function's name: "reversed:linear".
CONTROLS = ("reversed", "uniform", "equal_norm")


@dataclass(frozen=True, slots=True)
class Scaling:
    """A function of depth.

    Attributes:
        doc: f(d) for people.
        function: (d in [0, 1], parameters) -> f(d).
        parameters: what the function takes.
    """

    doc: str
    function: Callable[[float, Mapping[str, ParamValue]], float]
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Number of edited parameters outside the blocks, and in each block in order of depth."""

    outside: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Coefficients:
    """lambda outside the blocks, and of each block in order of depth."""

    outside: float
    blocks: tuple[float, ...]

    @property
    def all(self) -> tuple[float, ...]:
        """`outside` and then every block: the order of `resident.ResidentModel`'s groups."""
        return (self.outside, *self.blocks)


def _power(depth: float, params: Mapping[str, ParamValue]) -> float:
    exponent = params["p"]
    assert isinstance(exponent, float | int)
    return math.pow(depth, exponent)


def _piecewise(depth: float, params: Mapping[str, ParamValue]) -> float:
    knots = params["knots"]
    assert isinstance(knots, tuple)
    return float(np.interp(depth, np.linspace(0.0, 1.0, len(knots)), knots))


_P = Parameter("p", "exponent of depth", 2.0, low=0.0, open_low=True)
_KNOTS = Parameter("knots", "values of f at evenly spaced depths", (0.0, 1.0), kind="floats", min_length=2)

SCALINGS: dict[str, Scaling] = {
    "constant": Scaling("0: the same coefficient everywhere", lambda depth, params: 0.0),
    "linear": Scaling("d: LiNeS", lambda depth, params: depth),
    "sqrt": Scaling("d ** 0.5", lambda depth, params: math.sqrt(depth)),
    "quadratic": Scaling("d ** 2", lambda depth, params: depth * depth),
    "power": Scaling("d ** p", _power, (_P,)),
    "cosine": Scaling("(1 - cos(pi d)) / 2", lambda depth, params: (1.0 - math.cos(math.pi * depth)) / 2.0),
    "piecewise": Scaling("linear between knots", _piecewise, (_KNOTS,)),
}


def split_control(name: str) -> tuple[str, Scaling]:
    """The control in front of a scaling's name ("" for none), and the function behind it.

    Raises:
        ValueError: an unknown control or function; near names are suggested.
    """
    control, colon, function = name.rpartition(":")
    if colon and control not in CONTROLS:
        raise ValueError(f"scaling: unknown control {control!r} in {name!r}; {near(control, CONTROLS)}")
    return control, look_up(SCALINGS, function, "scaling")


def coefficients(recipe: Recipe, sizes: LayerSizes, alpha: float) -> Coefficients:
    """Lambda of every block, with `alpha` as a number in the place of the recipe's own (equation 2 resolved).

    Depth is (l - 1) / (L - 1), and 0 where there is one block. "reversed:" takes f at 1 - d. "uniform:" is one
    constant: the mean of lambda over all edited parameters, those outside the blocks too. "equal_norm:" is one constant
    that depends on the combined task vector: `alpha` must then be that constant, from `equal_norm`.

    Raises:
        ValueError: an unknown function, or a parameter that is not allowed.
    """
    control, scaling = split_control(recipe.scaling)
    params = resolve(scaling.parameters, dict(recipe.params))
    num_blocks = len(sizes.blocks)
    if control == "equal_norm":
        return Coefficients(alpha, (alpha,) * num_blocks)
    depths = [block / (num_blocks - 1) if num_blocks > 1 else 0.0 for block in range(num_blocks)]
    if control == "reversed":
        depths = [1.0 - depth for depth in depths]
    blocks = tuple(alpha + recipe.beta * scaling.function(depth, params) for depth in depths)
    if control == "uniform":
        mean = _weighted_mean(Coefficients(alpha, blocks), sizes)
        return Coefficients(mean, (mean,) * num_blocks)
    return Coefficients(alpha, blocks)


def is_equal_norm(recipe: Recipe) -> bool:
    """Whether the recipe's alpha must be resolved by `equal_norm` before `coefficients` are taken."""
    return split_control(recipe.scaling)[0] == "equal_norm"


def equal_norm(recipe: Recipe, sizes: LayerSizes, alpha: float, norms: Sequence[float]) -> float:
    """The constant c with ||c tau|| = ||lambda o tau|| (L2), for the function behind "equal_norm:".

    c = sqrt(sum_g lambda_g^2 n_g^2 / sum_g n_g^2), rounded to a recipe's seven digits. It is the negative root where
    sum_g lambda_g n_g is negative: a profile that points away from the experts has a control that does so too.

    Args:
        recipe: its scaling has "equal_norm:" in front.
        sizes: of the groups.
        alpha: the recipe's alpha as a number (equation 2 resolved).
        norms: n_g, the L2 norm of the combined vector tau outside the blocks and in each block (`deltas.group_norms`).

    Raises:
        ValueError: the combined vector is 0 everywhere.
    """
    plain = replace(recipe, scaling=recipe.scaling.removeprefix("equal_norm:"))
    lambdas = coefficients(plain, sizes, alpha).all
    total = math.fsum(n * n for n in norms)
    if total == 0:
        raise ValueError(f"scaling: {recipe.scaling!r} is not defined: the combined task vector is 0 everywhere")
    parts = [x * n for x, n in zip(lambdas, norms, strict=True)]
    constant = math.sqrt(math.fsum(part * part for part in parts) / total)
    return float(canonical_number(math.copysign(constant, math.fsum(parts))))


def _weighted_mean(lambdas: Coefficients, sizes: LayerSizes) -> float:
    counts = (sizes.outside, *sizes.blocks)
    return math.fsum(n * x for n, x in zip(counts, lambdas.all, strict=True)) / sum(counts)
