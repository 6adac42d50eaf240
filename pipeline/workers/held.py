"""Set a recipe once for all shards of a candidate."""

from typing import Protocol

from pipeline.merging.resident import Materialised
from pipeline.recipe import Recipe
from tasks.base import Backbone, KeepsOutputs


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
            backbone: learns which weights it has outside the blocks, if it keeps outputs.
        """
        self._model = model
        self._keeps = backbone if isinstance(backbone, KeepsOutputs) else None
        self._held: tuple[Recipe, Materialised] | None = None

    def hold(self, recipe: Recipe) -> Materialised:
        """Set `recipe` unless the model holds it already.

        Raises:
            ValueError: if it cannot be set.
        """
        if self._held is None or self._held[0] != recipe:
            self._forget()  # after an error the weights are those of no recipe
            self._held = recipe, self._model.materialise(recipe)
            if self._keeps:
                self._keeps.set_outside(self._held[1].outside)
        return self._held[1]

    def _forget(self) -> None:
        self._held = None
        if self._keeps:
            self._keeps.set_outside(None)
