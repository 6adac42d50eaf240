"""Average the statistics of batch normalisation of base and experts, which a merge must not extrapolate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.lazy import only
from pipeline.checkpoints.pieces import outline
from pipeline.merging.methods.base import Method, Params
from pipeline.merging.scaling import Coefficients
from pipeline.recipe import Number
from tasks.base import LayerMap
from tasks.batch_norm import is_statistic


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a merge goes from the base, and to which experts.

    Attributes:
        shares: of the experts, none negative, with the sum 1; all 0 if no expert has a positive weight.
        unit: the coefficient at which the merge goes as far as the experts' mean.
        lambdas: the coefficients of the merge.
        layer_map: over the names of the statistics.
    """

    shares: tuple[float, ...]
    unit: float
    lambdas: Coefficients
    layer_map: LayerMap

    def fraction(self, name: str) -> float:
        """Return the way from the base's statistic to the mean of the experts': at least 0, at most 1."""
        coefficient = self.lambdas.of(self.layer_map.blocks.get(name), name)
        return min(max(coefficient / self.unit, 0.0), 1.0) if any(self.shares) else 0.0


def statistics_of(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the statistics of batches in a state dict."""
    return only(state, [n for n, t in outline(state).items() if is_statistic(n) and t.is_floating_point()])


def shares_and_unit(
    method: Method, weights: Sequence[Number], params: Params, equation_2: Callable[[], float], changed: bool = False
) -> tuple[tuple[float, ...], float]:
    """Return the first two fields of `Reach`.

    The shares are in the ratio of the experts' factors in the merge; an expert with a negative one has none. If the
    method adds up factor times task vector, the unit is 1 over the sum of the positive factors; for other methods it is
    alpha of equation 2, and the shares are equal. If steps change the merge, the unit is alpha of equation 2.

    Args:
        method: of the merge.
        weights: one for each expert.
        params: every parameter of the method.
        equation_2: computes alpha of equation 2; called only if it is needed.
        changed: whether steps follow the merge.
    """
    factors = [max(float(f), 0.0) for f in (method.shares(weights, params) if method.shares else weights)]
    total = sum(factors)
    if not total:
        return (0.0,) * len(factors), 1.0
    return tuple(f / total for f in factors), 1 / total if method.shares and not changed else equation_2()


def average(base: Checkpoint, experts: Sequence[Checkpoint], reach: Reach) -> dict[str, Tensor]:
    """Average each statistic: (1 - t) base + t sum_i share_i expert_i, with t = lambda / unit within [0, 1].

    A convex combination, as a variance that is extrapolated may be negative. Computed in float64, and cast to the
    base's type.
    """
    averaged = {}
    for name, theta0 in statistics_of(base.state).items():
        t = reach.fraction(name)
        total = theta0.double() * (1 - t)
        for expert, share in zip(experts, reach.shares, strict=True):
            if t * share:
                total += expert.state[name].double() * (t * share)
        averaged[name] = total.to(theta0.dtype)
    return averaged
