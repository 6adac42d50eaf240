"""Set a recipe once for all shards of a candidate."""

from typing import Protocol

from pipeline.merging.resident import Materialised
from pipeline.recipe import Recipe


class Materialises(Protocol):
    """A model that can compute as a recipe defines, by its weights or by scales of low-rank factors."""

    def materialise(self, recipe: Recipe) -> Materialised:
        """Set the recipe; an earlier one has no effect on the result."""
        ...


class HeldRecipe:
    """The recipe that a model holds: it is not set again for the candidate's next shard."""

    def __init__(self, model: Materialises) -> None:
        """Start without a recipe."""
        self._model = model
        self._held: tuple[Recipe, Materialised] | None = None

    def hold(self, recipe: Recipe) -> Materialised:
        """Set `recipe` unless the model holds it already.

        Raises:
            ValueError: if it cannot be set.
        """
        if self._held is None or self._held[0] != recipe:
            self._held = None  # after an error the weights are those of no recipe
            self._held = recipe, self._model.materialise(recipe)
        return self._held[1]
