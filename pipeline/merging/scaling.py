"""Scaling functions: lambda(d) = alpha + beta * f(d) in the blocks, alpha outside (equation 1, appendices A and C.3).

A recipe may fix lambda outside the blocks at another number. Every candidate of the arm then has it there, controls
included, so that only the blocks differ: constants of equal mean and norm are those of the blocks.

Components of the model may have factors (see `components`): the coefficient of a parameter is lambda times its factor.

This module does not import torch, so that specs, reports and head nodes can use it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.merging.components import Components
from pipeline.parameters import Parameter, look_up, resolve
from pipeline.recipe import OUTSIDE, ParamValue, Recipe
from tasks.registry import near

#: A control is a prefix of a function's name: "reversed:linear".
CONTROLS = ("reversed", "uniform", "equal_norm")


@dataclass(frozen=True, slots=True)
class Scaling:
    """A function of depth.

    Attributes:
        doc: f(d) for users.
        function: (d in [0, 1], parameters) -> f(d).
        parameters: parameters that the function takes.
        groups: name of the parameter that has one number for each group of consecutive blocks; "" for none.
        free: the scalars that a search may vary without giving one model twice: alpha, beta and parameters, of which
            one that is a sequence counts once for each number. Lambda outside the blocks and components add theirs.
        inputs: whether it is computed from inputs of the tasks.
        labels: whether it is computed from their labels, too.
        forward_passes: how many it takes for each candidate, before the candidate is scored.

    Example:
        >>> SCALINGS["quadratic"].function(0.5, {})
        0.25
    """

    doc: str
    function: Callable[[float, Mapping[str, ParamValue]], float]
    parameters: tuple[Parameter, ...] = ()
    groups: str = ""
    free: tuple[str, ...] = ("alpha", "beta")
    inputs: bool = False
    labels: bool = False
    forward_passes: int = 0


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Number of edited parameters outside the blocks, and in each block in order of depth.

    Attributes:
        outside: outside the blocks.
        blocks: in each block.
        names: name of each edited tensor -> its number of entries; needed for factors of components only.
    """

    outside: int
    blocks: tuple[int, ...]
    names: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Lambda outside the blocks, and of each block in order of depth; and what it is multiplied with.

    Attributes:
        outside: lambda outside the blocks.
        blocks: lambda of each block.
        components: with the factors of components.
        in_blocks: whether the factors apply in the blocks, too, and not only outside.
    """

    outside: float
    blocks: tuple[float, ...]
    components: Components = field(default=Components(), repr=False)
    in_blocks: bool = field(default=True, repr=False)

    def of(self, block: int | None, name: str) -> float:
        """Return the coefficient of a parameter: lambda of its block (None: outside the blocks) times its factor."""
        value = self.outside if block is None else self.blocks[block]
        return value * self.components.factor(name) if block is None or self.in_blocks else value

    @property
    def all(self) -> tuple[float, ...]:
        """Lambda outside, then of every block: the order of the groups in `flat.Arena`."""
        return (self.outside, *self.blocks)


def _power(depth: float, params: Mapping[str, ParamValue]) -> float:
    exponent = params["p"]
    assert isinstance(exponent, float | int)
    return math.pow(depth, exponent)


def _piecewise(depth: float, params: Mapping[str, ParamValue]) -> float:
    knots = params["knots"]
    assert isinstance(knots, tuple)
    import numpy as np  # not before it is used: `lines --help` lists the functions

    return float(np.interp(depth, np.linspace(0.0, 1.0, len(knots)), knots))


def _grouped(depth: float, params: Mapping[str, ParamValue]) -> float:
    factors = params["factors"]
    assert isinstance(factors, tuple)
    # Depths are fractions with a denominator far below 1e9: the small number only undoes rounding below a boundary.
    return factors[min(math.floor(depth * len(factors) + 1e-9), len(factors) - 1)]


_P = Parameter("p", "exponent of depth", 2.0, low=0.0, open_low=True)
_KNOTS = Parameter("knots", "values of f at evenly spaced depths", (0.0, 1.0), kind="floats", min_length=2)
_FACTORS = Parameter("factors", "f of each group of blocks, in order of depth", (0.0, 0.5, 1.0), kind="floats")

#: Of every function; a recipe that does not name it has alpha outside the blocks.
LAMBDA_OUTSIDE = Parameter(OUTSIDE, "lambda outside the blocks, in place of alpha", 1.0)

SCALINGS: dict[str, Scaling] = {
    "constant": Scaling("0: the same coefficient everywhere", lambda depth, params: 0.0, free=("alpha",)),
    "linear": Scaling("d: LiNeS", lambda depth, params: depth),
    "sqrt": Scaling("d ** 0.5", lambda depth, params: math.sqrt(depth)),
    "quadratic": Scaling("d ** 2", lambda depth, params: depth * depth),
    "power": Scaling("d ** p", _power, (_P,), free=("alpha", "beta", "p")),
    "cosine": Scaling("(1 - cos(pi d)) / 2", lambda depth, params: (1.0 - math.cos(math.pi * depth)) / 2.0),
    "piecewise": Scaling("linear between knots", _piecewise, (_KNOTS,), free=("alpha", "knots")),
    "grouped": Scaling(
        "one number a group of blocks: HMA", _grouped, (_FACTORS,), groups="factors", free=("alpha", "factors")
    ),
}


def split_control(name: str) -> tuple[str, Scaling]:
    """Split a scaling's name into its control ("" for none) and its function.

    Raises:
        ValueError: if the control or the function is unknown; near names are suggested.
    """
    control, colon, function = name.rpartition(":")
    if colon and control not in CONTROLS:
        raise ValueError(f"scaling: unknown control {control!r} in {name!r}; {near(control, CONTROLS)}")
    return control, look_up(SCALINGS, function, "scaling")


def check_groups(name: str, params: Mapping[str, object], num_blocks: int) -> None:
    """Require that each number of a function of groups has a block.

    Args:
        name: of the function, with or without a control.
        params: of the function; numbers may be grids or ranges.
        num_blocks: of the model.

    Raises:
        ValueError: if there are more numbers than blocks.
    """
    scaling = split_control(name)[1]
    for parameter in scaling.parameters:
        values = params.get(parameter.name, parameter.default)
        if parameter.name == scaling.groups and isinstance(values, tuple) and len(values) > num_blocks:
            raise ValueError(
                f"{parameter.name}: must have at most one number for each of the model's {num_blocks} blocks, got "
                f"{len(values)}"
            )


def coefficients(recipe: Recipe, sizes: LayerSizes, alpha: float) -> Coefficients:
    """Compute lambda of every block, with the number `alpha` in place of the recipe's own (equation 2 resolved).

    Depth is (l - 1) / (L - 1), and 0 if there is one block. "reversed:" takes f at 1 - d. "uniform:" is one constant:
    the mean of lambda over all edited parameters, including those outside the blocks. "equal_norm:" is one constant
    that depends on the combined task vector. Constants have no factors of components. `alpha` must be the control's
    constant if `alpha_is_constant`: see `control_constants`.

    Raises:
        ValueError: if the function is unknown, or a parameter is not allowed or has more groups than there are blocks.

    Example:
        >>> coefficients(Recipe.make("sum", "linear", 0.5, 1.0), LayerSizes(10, (20, 20, 20)), alpha=0.5)
        Coefficients(outside=0.5, blocks=(0.5, 1.0, 1.5))
    """
    control, scaling = split_control(recipe.scaling)
    params = resolve(scaling.parameters, dict(recipe.params))
    fixed, num_blocks = fixed_outside(recipe), len(sizes.blocks)
    check_groups(recipe.scaling, params, num_blocks)
    outside, components = alpha if fixed is None else fixed, Components.of(dict(recipe.params))
    if alpha_is_constant(recipe):
        kept = Components() if fixed is None else components
        return Coefficients(outside, (alpha,) * num_blocks, kept, in_blocks=not kept)
    depths = [block / (num_blocks - 1) if num_blocks > 1 else 0.0 for block in range(num_blocks)]
    if control == "reversed":
        depths = [1.0 - depth for depth in depths]
    blocks = tuple(alpha + recipe.beta * scaling.function(depth, params) for depth in depths)
    if control == "uniform":
        if fixed is not None:
            return Coefficients(fixed, (weighted_mean(blocks, sizes.blocks),) * num_blocks)
        mean = weighted_mean((alpha, *blocks), (sizes.outside, *sizes.blocks))
        return Coefficients(mean, (mean,) * num_blocks)
    return Coefficients(outside, blocks, components)


def fixed_outside(recipe: Recipe) -> float | None:
    """Return lambda outside the blocks if the recipe fixes it; None if it is alpha.

    Raises:
        ValueError: if it is not a finite number.
    """
    value = dict(recipe.params).get(OUTSIDE)
    if value is None:
        return None
    checked = LAMBDA_OUTSIDE.check(value)
    assert isinstance(checked, float | int)
    return float(checked)


def alpha_is_constant(recipe: Recipe) -> bool:
    """Whether the recipe's alpha must be resolved to its control's constant before `coefficients` are taken."""
    control = split_control(recipe.scaling)[0]
    return control == "equal_norm" or (control == "uniform" and recipe.has_components)


def origin_of_constant(recipe: Recipe) -> str:
    """Return "equal mean" or "equal norm" if `alpha_is_constant`, else ""."""
    names = {"uniform": "equal mean", "equal_norm": "equal norm"}
    return names[split_control(recipe.scaling)[0]] if alpha_is_constant(recipe) else ""


def weighted_mean(lambdas: Sequence[float], counts: Sequence[float]) -> float:
    """Return the mean lambda over parameters; 0 if nothing is edited in any of the groups."""
    return math.fsum(n * x for n, x in zip(counts, lambdas, strict=True)) / max(1, sum(counts))
