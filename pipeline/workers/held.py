"""Set a recipe once for all shards of a candidate."""

from typing import Protocol

from pipeline.merging.resident import Applied
from pipeline.recipe import Recipe


class Materialises(Protocol):
    """What has a model compute as a recipe says, by its weights or by scales beside them."""

    def materialise(self, recipe: Recipe) -> Applied:
        """Set it; whatever was set before has no part in it."""
        ...


class Held:
    """The recipe that is set: a candidate's next shard need not set it again."""

    def __init__(self, model: Materialises) -> None:
        """Nothing is set yet."""
        self._model = model
        self._holds: tuple[Recipe, Applied] | None = None

    def hold(self, recipe: Recipe) -> Applied:
        """Set `recipe` unless it is set already.

        Raises:
            ValueError: it cannot be set.
        """
        if self._holds is None or self._holds[0] != recipe:
            self._holds = None  # what fails leaves the weights of no recipe
            self._holds = recipe, self._model.materialise(recipe)
        return self._holds[1]
