"""Set a recipe once for all shards of a candidate."""

from collections.abc import Hashable
from typing import Protocol

from pipeline.merging.resident import Materialised
from pipeline.recipe import Recipe
from tasks.base import Backbone, KeepsOutputs, KeepsStart


class Materialises(Protocol):
    """A model that can compute as a recipe defines, by its weights or by scales of low-rank factors."""

    def materialise(self, recipe: Recipe) -> Materialised:
        """Set the recipe; an earlier one has no effect on the result."""
        ...


class HeldRecipe:
    """The recipe that a model holds: it is not set again for the candidate's next shard."""

    def __init__(self, model: Materialises, backbone: Backbone | None = None) -> None:
        """Start without a recipe.

        Args:
            model: rebuilds the weights.
            backbone: learns which weights it has outside the blocks, or before the second one, if it keeps outputs.
        """
        self._model = model
        self._outside = backbone if isinstance(backbone, KeepsOutputs) else None
        self._start = backbone if isinstance(backbone, KeepsStart) else None
        self._held: tuple[Recipe, Materialised] | None = None

    def hold(self, recipe: Recipe) -> Materialised:
        """Set `recipe` unless the model holds it already.

        Raises:
            ValueError: if it cannot be set.
        """
        if self._held is None or self._held[0] != recipe:
            self._forget()  # after an error the weights are those of no recipe
            self._held = recipe, self._model.materialise(recipe)
            self._tell(self._held[1].outside, self._held[1].start)
        return self._held[1]

    def _forget(self) -> None:
        self._held = None
        self._tell(None, None)

    def _tell(self, outside: Hashable | None, start: Hashable | None) -> None:
        if self._outside:
            self._outside.set_outside(outside)
        if self._start:
            self._start.set_start(start)
