"""A combined task vector on its device, and what is worked out of it for one recipe after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.merging.flat import Held
from pipeline.merging.methods.base import resolve_weights
from pipeline.merging.scaling import LayerSizes, equal_norm, is_equal_norm
from pipeline.merging.task_vectors import group_norms, resolve_alpha
from pipeline.recipe import Recipe
from tasks.base import LayerMap


@dataclass(slots=True)
class Combined:
    """What a method gave for some weights and parameters; it serves every scaling of them.

    Attributes:
        vector: the combined task vector.
        peaks: the largest magnitude in each of its groups.
    """

    vector: Held
    peaks: tuple[float, ...]
    _alphas: dict[str, float] = field(default_factory=dict)
    _norms: tuple[float, ...] = ()

    def alpha(
        self, recipe: Recipe, deltas: Sequence[Mapping[str, Tensor]], layer_map: LayerMap, sizes: LayerSizes
    ) -> float:
        """The number that `scaling.coefficients` takes: the recipe's alpha, equation 2, or the constant of equal norm.

        Args:
            recipe: one of the method, weights and parameters that gave the vector.
            deltas: the task vectors of all experts.
            layer_map: of the vector's names.
            sizes: of its groups.

        Raises:
            ValueError: equation 2 or the constant is not defined.
        """
        alpha = self._outside(recipe, deltas)
        if not is_equal_norm(recipe):
            return alpha
        self._norms = self._norms or group_norms(layer_map, self.vector)
        return equal_norm(recipe, sizes, alpha, self._norms)

    def _outside(self, recipe: Recipe, deltas: Sequence[Mapping[str, Tensor]]) -> float:
        if not isinstance(recipe.alpha, str):
            return float(recipe.alpha)
        if recipe.alpha not in self._alphas:
            weights = resolve_weights(recipe.weights, len(deltas))
            used = [delta for delta, weight in zip(deltas, weights, strict=True) if weight]
            self._alphas[recipe.alpha] = resolve_alpha(recipe.alpha, used, self.vector)
        return self._alphas[recipe.alpha]
