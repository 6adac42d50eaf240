"""The constants of the controls "uniform:" and "equal_norm:", which depend on what is edited.

This module does not import torch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from pipeline.merging.components import Components
from pipeline.merging.scaling import (
    LayerSizes,
    alpha_is_constant,
    coefficients,
    fixed_outside,
    split_control,
    weighted_mean,
)
from pipeline.recipe import Recipe, canonical_number

#: Parameters with one coefficient: (0 outside the blocks, else 1 + block; factor of their component).
Cell: TypeAlias = tuple[int, float]


def constant_or_alpha(
    recipe: Recipe,
    sizes: LayerSizes,
    alpha: float,
    counts: Callable[[Components], Mapping[Cell, float]],
    norms: Callable[[Components], Mapping[Cell, float]],
) -> float:
    """Return the constant of a control if `alpha_is_constant`, else `alpha`.

    Args:
        recipe: of the candidate.
        sizes: of the blocks.
        alpha: the recipe's alpha as a number (equation 2 resolved).
        counts: returns the number of edited parameters in each cell.
        norms: returns the L2 norm of the combined vector in each cell.

    Raises:
        ValueError: if the combined vector is 0 everywhere.
    """
    if not alpha_is_constant(recipe):
        return alpha
    components = Components.of(dict(recipe.params))
    if split_control(recipe.scaling)[0] == "equal_norm":
        return equal_norm(recipe, sizes, alpha, norms(components))
    return equal_mean(recipe, sizes, alpha, counts(components))


def equal_mean(recipe: Recipe, sizes: LayerSizes, alpha: float, counts: Mapping[Cell, float]) -> float:
    """Compute the mean of lambda times factor over all edited parameters, for the function after "uniform:".

    If the recipe fixes lambda outside the blocks, the mean is over those in the blocks. It is rounded to seven digits.

    Args:
        recipe: its scaling begins with "uniform:", and components have factors.
        sizes: of the blocks.
        alpha: the recipe's alpha as a number (equation 2 resolved).
        counts: numbers of edited parameters.
    """
    cells = _coefficients_of_cells(recipe, sizes, alpha, counts)
    return float(canonical_number(weighted_mean([x for x, _ in cells], [n for _, n in cells])))


def equal_norm(recipe: Recipe, sizes: LayerSizes, alpha: float, norms: Mapping[Cell, float]) -> float:
    """Compute the constant c with ||c tau|| = ||lambda o tau|| (L2), for the function after "equal_norm:".

    c = sqrt(sum_g lambda_g^2 n_g^2 / sum_g n_g^2), rounded to a recipe's seven digits; g runs over the blocks, and over
    the part outside them unless the recipe fixes lambda there. If components have factors, g runs over the parts of a
    block with equal factors, and lambda_g is that of the block times the factor. It is the negative root if
    sum_g lambda_g n_g is negative: a profile that points away from the experts has a control that does so too.

    Args:
        recipe: its scaling begins with "equal_norm:".
        sizes: of the groups.
        alpha: the recipe's alpha as a number (equation 2 resolved).
        norms: n_g, the L2 norm of the combined vector tau in each cell (see `task_vectors.cell_norms`).

    Raises:
        ValueError: if the combined vector is 0 everywhere.
    """
    cells = _coefficients_of_cells(recipe, sizes, alpha, norms)
    total = math.fsum(n * n for _, n in cells)
    if total == 0:
        raise ValueError(f"scaling: {recipe.scaling!r} is not defined: the combined task vector is 0 everywhere")
    parts = [x * n for x, n in cells]
    constant = math.sqrt(math.fsum(part * part for part in parts) / total)
    return float(canonical_number(math.copysign(constant, math.fsum(parts))))


def _coefficients_of_cells(
    recipe: Recipe, sizes: LayerSizes, alpha: float, values: Mapping[Cell, float]
) -> list[tuple[float, float]]:
    """Return (coefficient without the control, value) of each cell on which the control's constant depends."""
    lambdas = coefficients(replace(recipe, scaling=recipe.scaling.partition(":")[2]), sizes, alpha).all
    first = 0 if fixed_outside(recipe) is None else 1
    return [(lambdas[place] * factor, value) for (place, factor), value in values.items() if place >= first]
