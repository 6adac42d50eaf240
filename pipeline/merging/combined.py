"""Combined task vectors on their device, cached, with what is computed from one for each recipe."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from pipeline.merging.chain import Chain
from pipeline.merging.components import Components
from pipeline.merging.control_constants import Cell, constant_or_alpha
from pipeline.merging.flat import DeviceVector
from pipeline.merging.methods import look_up_method
from pipeline.merging.methods.base import Params, resolve_weights
from pipeline.merging.scaling import Coefficients, LayerSizes, coefficients
from pipeline.merging.task_vectors import cell_counts, cell_norms, resolve_alpha
from pipeline.parameters import resolve
from pipeline.recipe import Number, Recipe
from tasks.base import LayerMap, NonFiniteError


@dataclass(slots=True)
class Combined:
    """The result of a merge and the steps after it; it serves every scaling of them.

    Attributes:
        vector: the combined task vector.
        peaks: the largest magnitude in each of its groups; () if the caller does not need it.
        key: method, weights, parameters and steps, which determine the vector; set by `CombinedCache`.
    """

    vector: DeviceVector
    peaks: tuple[float, ...] = ()
    key: tuple[object, ...] = ()
    _alphas: dict[str, float] = field(default_factory=dict)
    _norms: dict[Components, Mapping[Cell, float]] = field(default_factory=dict)

    def lambdas(
        self, recipe: Recipe, deltas: Sequence[Mapping[str, Tensor]], layer_map: LayerMap, sizes: LayerSizes
    ) -> tuple[float, Coefficients]:
        """Compute the coefficients of a recipe.

        Args:
            recipe: with the method, weights, parameters and steps that gave the vector.
            deltas: the task vectors of all experts.
            layer_map: over the vector's names.
            sizes: of its groups.

        Returns:
            The recipe's alpha as a number (equation 2 resolved, or the constant of a control); and the coefficients.

        Raises:
            NonFiniteError: if a coefficient is NaN or infinite.
            ValueError: if equation 2 or the constant is not defined, or a component has no edited parameter.
        """

        def norms(components: Components) -> Mapping[Cell, float]:
            if components not in self._norms:
                self._norms[components] = cell_norms(layer_map, self.vector, components)
            return self._norms[components]

        counts = partial(cell_counts, layer_map, sizes.names)
        alpha = constant_or_alpha(recipe, sizes, self._alpha(recipe, deltas), counts, norms)
        found = coefficients(recipe, sizes, alpha)
        Components.of(dict(recipe.params)).check(sizes.names)
        if not all(map(math.isfinite, found.all)):
            raise NonFiniteError(f"non-finite coefficient in {recipe}: lambda = {found.all}")
        return alpha, found

    def _alpha(self, recipe: Recipe, deltas: Sequence[Mapping[str, Tensor]]) -> float:
        if not isinstance(recipe.alpha, str):
            return float(recipe.alpha)
        if recipe.alpha not in self._alphas:
            weights = resolve_weights(recipe.weights, len(deltas))
            used = [delta for delta, weight in zip(deltas, weights, strict=True) if weight]
            self._alphas[recipe.alpha] = resolve_alpha(recipe.alpha, used, self.vector)
        return self._alphas[recipe.alpha]


class CombinedCache:
    """The combined vectors that were used last."""

    def __init__(self, size: int, combine: Callable[[Recipe, tuple[Number, ...], Params], Combined]) -> None:
        """Keep at most `size` vectors; `combine` makes one of a recipe, its weights and its method's parameters."""
        self._size, self._combine = size, combine
        self._vectors: OrderedDict[tuple[object, ...], Combined] = OrderedDict()

    def get(self, recipe: Recipe, num_experts: int) -> Combined:
        """Return the vector of a recipe, and compute it if it is not kept.

        Raises:
            ValueError: if the method or a step is unknown, or cannot use the recipe's weights or parameters.
        """
        method = look_up_method(recipe.method, "method")
        weights = resolve_weights(recipe.weights, num_experts)
        params = resolve(method.parameters, dict(recipe.params))
        key = (recipe.method, weights, tuple(sorted(params.items())), Chain.of(recipe).key)
        if key not in self._vectors:
            # Freed before the next is computed, so that no more than `size` are ever in memory.
            while len(self._vectors) >= self._size:
                self._vectors.popitem(last=False)
            method.check(weights, params)
            self._vectors[key] = self._combine(recipe, weights, params)
            self._vectors[key].key = key
        self._vectors.move_to_end(key)
        return self._vectors[key]
