"""Rewarded soups: weights on the simplex (equation 4, and Rame et al. 2023 for more than two rewards).

Legend: K policies, in the order of the run's experts; their weights are at least 0 and sum to 1.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from pipeline.spec.values import Grid, Lambdas, Range
from search.space import MAX_GRID, Choice, Dimension, Float

#: The dimension of a soup's space; a continuous one with K > 2 has K - 1 dimensions: lambda.1, lambda.2, ...
LAMBDA = "lambda"


def lambda_dimensions(lambdas: Lambdas, count: int) -> list[Dimension]:
    """Return the searched dimensions of a soup of `count` policies.

    Raises:
        ValueError: if there are fewer than two policies, or the weights are for another number of policies.
    """
    if count < 2:
        raise ValueError(f"merge.lambdas: a soup needs at least 2 experts, got {count}")
    if isinstance(lambdas, Range):
        if count == 2:
            return [Float(LAMBDA, *lambdas.range, step=lambdas.step)]
        if lambdas.range != (0.0, 1.0) or lambdas.step is not None:
            raise ValueError(f"merge.lambdas: the range of {count} experts must be [0, 1] without a step")
        return [Float(f"{LAMBDA}.{i + 1}", 0.0, 1.0) for i in range(count - 1)]
    if isinstance(lambdas, Grid) and count != 2:
        raise ValueError(
            f"merge.lambdas: a grid holds weights of the first of 2 experts; for {count}, give points or lists"
        )
    return [Choice(LAMBDA, tuple(dict.fromkeys(map(_format, _points(lambdas, count)))))]


def _points(lambdas: int | Grid | tuple[tuple[float, ...], ...], count: int) -> list[tuple[float, ...]]:
    if isinstance(lambdas, Grid):
        return [(w, 1 - w) for w in lambdas.grid]
    if isinstance(lambdas, tuple):
        if wrong := next((w for w in lambdas if len(w) != count), None):
            raise ValueError(f"merge.lambdas: needs one weight for each of {count} experts, got {list(wrong)}")
        return list(lambdas)
    steps = lambdas - 1
    if math.comb(steps + count - 1, count - 1) > MAX_GRID:
        raise ValueError(
            f"merge.lambdas: at most {MAX_GRID:,} points, got more, by {lambdas} on each edge of {count} experts: give "
            "a smaller number, a range, or lists of weights"
        )
    # Stars and bars: count - 1 bars among the places separate the parts.
    bars = itertools.combinations(range(steps + count - 1), count - 1)
    cuts = ((-1, *places, steps + count - 1) for places in bars)
    return [tuple((b - a - 1) / steps for a, b in itertools.pairwise(cut)) for cut in cuts]


def _format(weights: Sequence[float]) -> float | str:
    """Return a point as tables show it: the first weight of two, else all weights."""
    return round(weights[0], 7) if len(weights) == 2 else ", ".join(f"{w:.7g}" for w in weights)


def soup_weights(point: Mapping[str, float | int | str], count: int) -> tuple[float, ...]:
    """Return the (K,) weights of a point.

    Continuous weights of more than two policies are cut from a stick: w1 = 1 - (1 - u1) ** (1 / (K - 1)), then w2 from
    the rest with K - 2, ..., so that uniform u give uniform points on the simplex.

    Example:
        >>> soup_weights({"lambda": 0.25}, 2)
        (0.25, 0.75)
    """
    value = point.get(LAMBDA)
    if isinstance(value, str):
        return tuple(float(part) for part in value.split(","))
    if value is not None:
        return float(value), 1 - float(value)
    left, weights = 1.0, []
    for i in range(1, count):
        cut = 1 - (1 - float(point[f"{LAMBDA}.{i}"])) ** (1 / (count - i))
        weights.append(left * cut)
        left -= weights[-1]
    return (*weights, left)
