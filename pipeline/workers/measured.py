"""Measure what memory it takes to set the weights of a recipe."""

from collections.abc import Hashable

from pipeline.learning.live_bytes import LiveBytes
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import resolve_weights
from pipeline.merging.steps import STEPS
from pipeline.parameters import resolve
from pipeline.recipe import Recipe
from pipeline.workers.held import HeldRecipe


class MeasuredRecipe:
    """Sets recipes, and knows the most bytes of tensors that this makes at once.

    They are measured for the first recipe of those that hold the same: a measurement takes 10 to 30 µs for each
    operation. What a method learns from data is measured by itself (`Gatherer.note`).
    """

    def __init__(self, held: HeldRecipe, num_experts: int) -> None:
        """Take what holds the recipe, and the number of experts of the run."""
        self._held, self._num_experts = held, num_experts
        self._peaks: dict[Hashable, int] = {}

    def hold(self, recipe: Recipe) -> tuple[float, int]:
        """Set a recipe, and return its alpha and the bytes; 0 of the base and of a method that learns from data.

        Raises:
            ValueError: if it cannot be set.
        """
        if recipe.method == "zero" or METHODS[recipe.method].needs:
            return self._held.hold(recipe).alpha, 0
        kind = _kind(recipe, self._num_experts)
        if kind in self._peaks:
            return self._held.hold(recipe).alpha, self._peaks[kind]
        with LiveBytes() as live:
            alpha = self._held.hold(recipe).alpha
        self._peaks[kind] = live.peak
        return alpha, live.peak


def _kind(recipe: Recipe, num_experts: int) -> Hashable:
    """Return what decides how much is held: the experts that take part, the method, the steps, and their choices.

    Of a number it only counts whether it is 0: KnOTS with `drop: 0` draws no mask. Nothing of the scaling is in it, so
    recipes that share a combined vector, which is kept, are of one kind.
    """
    taking_part = sum(weight != 0 for weight in resolve_weights(recipe.weights, num_experts))
    made = [(recipe.method, METHODS[recipe.method].parameters, recipe.params)]
    made += [(name, STEPS[name].parameters, params) for name, params in recipe.then]
    return taking_part, *(
        (name, *(v if isinstance(v, str) else v != 0 for v in resolve(parameters, dict(params)).values()))
        for name, parameters, params in made
    )
