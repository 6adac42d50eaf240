"""Functions of depth: lambda(d) = alpha + beta * f(d) in the blocks, alpha outside (equation 1, appendices A and C.3).

Free of torch, so that specs, reports and head nodes can use it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.merging.parameters import Parameter, look_up, near, resolve
from pipeline.recipe import ParamValue, Recipe

#: Controls go in front of a function's name: "reversed:linear".
CONTROLS = ("reversed", "uniform")


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
        raise ValueError(f"scaling: unknown control {control!r} in {name!r}{near(control, CONTROLS)}")
    return control, look_up(SCALINGS, function, "scaling")


def coefficients(recipe: Recipe, sizes: LayerSizes, alpha: float) -> Coefficients:
    """Lambda of every block, with `alpha` as a number in the place of the recipe's own (equation 2 resolved).

    Depth is (l - 1) / (L - 1), and 0 where there is one block. "reversed:" takes f at 1 - d. "uniform:" is one
    constant: the mean of lambda over all edited parameters, those outside the blocks too.

    Raises:
        ValueError: an unknown function, or a parameter that is not allowed.
    """
    control, scaling = split_control(recipe.scaling)
    params = resolve(scaling.parameters, dict(recipe.params))
    num_blocks = len(sizes.blocks)
    depths = [block / (num_blocks - 1) if num_blocks > 1 else 0.0 for block in range(num_blocks)]
    if control == "reversed":
        depths = [1.0 - depth for depth in depths]
    blocks = tuple(alpha + recipe.beta * scaling.function(depth, params) for depth in depths)
    if control == "uniform":
        mean = _weighted_mean(Coefficients(alpha, blocks), sizes)
        return Coefficients(mean, (mean,) * num_blocks)
    return Coefficients(alpha, blocks)


def _weighted_mean(lambdas: Coefficients, sizes: LayerSizes) -> float:
    counts = (sizes.outside, *sizes.blocks)
    return math.fsum(n * x for n, x in zip(counts, lambdas.all, strict=True)) / sum(counts)
