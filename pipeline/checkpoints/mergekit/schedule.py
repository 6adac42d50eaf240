"""The step of each tensor of a recipe: by its name, its layer and the slice that the layer is in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoints.mergekit.document import RecipeFile, Slice, read_recipe
from pipeline.checkpoints.mergekit.fields import Field, Scope
from pipeline.checkpoints.mergekit.settings import (
    Scopes,
    Setting,
    Value,
    check_number,
    method_fields,
    read_settings,
)
from pipeline.checkpoints.mergekit.steps import STEPS, Given, Step
from pipeline.spec.validation import SpecError
from pipeline.spec.yaml_reader import ValuePath

#: Names of embeddings, which belong to the first slice in mergekit; other tensors outside the layers to the last.
_FIRST = re.compile(r"embed(?!_out)|\bw[tp]e\b")
#: Method -> whether it has a base (None: as the recipe says), the least number of other models, and the most.
_INPUTS: Mapping[str, tuple[bool | None, int, int | None]] = {
    "linear": (None, 1, None),
    "karcher": (None, 1, None),
    "nuslerp": (None, 2, 2),
    "multislerp": (None, 1, None),
    "slerp": (True, 1, 1),
    "model_stock": (True, 2, None),
    "nearswap": (True, 1, 1),
    "arcee_fusion": (True, 1, 1),
}
#: Methods for which the base is a model like the others.
_NO_BASE = ("linear", "karcher")


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A tensor of a model.

    Attributes:
        name: of the tensor.
        size: its entries.
        layer: its layer; None outside the layers.
        layers: the number of layers.
    """

    name: str
    size: int
    layer: int | None
    layers: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recipe of mergekit, checked.

    Attributes:
        recipe: its file.
        scopes: the settings of each slice.
        notes: on parameters without an effect.

    Example:
        schedule = read_schedule(Path("mergekit.yml"))
        schedule.step(TensorPlace("model.layers.3.mlp.up_proj.weight", 45_088_768, 3, 32))
    """

    recipe: RecipeFile
    scopes: Sequence[Scopes]
    notes: Sequence[str]

    @property
    def by_layer(self) -> Setting | None:
        """A setting that differs from layer to layer, or None if there is none."""
        every = (s for scope in self.scopes for of in (scope.shared, *scope.models) for s in of.values())
        settings = (setting for found in every for setting in found)
        return next((s for s in settings if any(len(c.values) > 1 for c in s.conditions)), None)

    @property
    def needs_layers(self) -> bool:
        """Whether the layer of a tensor matters."""
        return self.recipe.config.slices is not None or self.by_layer is not None

    def check_layers(self, count: int) -> None:
        """Check that the slices hold all layers of a model.

        Raises:
            SpecError: if they do not.
        """
        at, last = self.recipe.slices[-1]
        if (found := last.sources[0].layer_range) and found[1] != count:
            raise self.recipe.error(
                (*self.recipe.source_path(at, 0), "layer_range"),
                f"must end with layer {count}, as the models have {count} layers, got {list(found)}: a merge keeps "
                "every layer",
            )

    def step(self, tensor: TensorPlace) -> Step:
        """Return how a tensor is merged.

        Raises:
            SpecError: if a parameter is missing, or the method cannot use the values for this tensor.
        """
        place, depth = self._where(tensor)
        at, part = self.recipe.slices[place]
        scopes, fields = self.scopes[place], method_fields(self.recipe)
        base = part.base_model or self.recipe.config.base_model
        method = self.recipe.config.merge_method
        value = _Reader(self.recipe, tensor.name, depth).value

        def values(settings: Mapping[str, Sequence[Setting]], scope: Scope, where: ValuePath) -> dict[str, Value]:
            return {n: value(f, settings.get(n, ()), where) for n, f in fields.items() if f.scope == scope}

        own = []
        for i, (source, settings) in enumerate(zip(part.sources, scopes.models, strict=True)):
            where = self.recipe.source_path(at, i)
            of_expert = values(settings, "experts", where) if source.model != base else {}
            own.append(values(settings, "models", where) | of_expert)
        models = tuple(source.model for source in part.sources)
        try:
            shared = values(scopes.shared, "all", at)
            step = STEPS[method](Given(method, models, base, tensor.size, shared, own))
            step.check()
        except SpecError:
            raise
        except ValueError as error:
            raise self.recipe.error(("merge_method",), f"{method}, for {tensor.name}: {error}") from None
        return step

    def _where(self, tensor: TensorPlace) -> tuple[int, float]:
        """Return the slice of a tensor, and its depth in it; 0 outside the layers: lists have their first value."""
        layer = tensor.layer
        if layer is None:
            return (0 if _FIRST.search(tensor.name) else len(self.scopes) - 1), 0.0
        for place, (_, part) in enumerate(self.recipe.slices):
            first, end = part.sources[0].layer_range or (0, tensor.layers)
            if first <= layer < end:
                return place, (layer - first) / (end - first - 1) if end - first > 1 else 1.0
        raise AssertionError("every layer is in a slice: see check_layers")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes the value of a parameter for one tensor."""

    recipe: RecipeFile
    name: str
    depth: float

    def value(self, field: Field, settings: Sequence[Setting], where: ValuePath) -> Value:
        for setting in settings:
            for condition in setting.conditions:
                if condition.holds(self.name):
                    found = condition.at(self.depth)
                    return found if isinstance(found, bool) else check_number(self.recipe, setting.at, field, found)
        if field.default is None:
            method = self.recipe.config.merge_method
            raise self.recipe.error(
                (*where, "parameters", field.name), f"is required by {method}, and nothing gives it for {self.name}"
            )
        return field.default


def read_schedule(path: Path) -> Schedule:
    """Read and check a recipe of mergekit.

    Raises:
        SpecError: if it is not valid, or holds what is not available here; the message has the field and the line.
    """
    recipe = read_recipe(path)
    scopes, notes = read_settings(recipe)
    for at, part in recipe.slices:
        _check_inputs(recipe, at, part)
    return Schedule(recipe, scopes, notes)


def _check_inputs(recipe: RecipeFile, at: ValuePath, part: Slice) -> None:
    method, base = recipe.config.merge_method, part.base_model or recipe.config.base_model
    has_base, least, most = _INPUTS.get(method, (True, 1, None))
    models = [source.model for source in part.sources]
    where: ValuePath = (*at, "sources") if at else ("models",)
    if has_base and base is None:
        raise recipe.error((*at, "base_model"), f"is required by {method}")
    if method in _NO_BASE:
        base = None
    if base is not None and base not in models:
        raise recipe.error(where, f"must hold the base_model {base!r} too, as mergekit asks for in slices")
    others = len(models) - (base is not None)
    if others < least or (most is not None and others > most):
        number = f"{least}" if most == least else f"at least {least}"
        what = "models" if method in _NO_BASE else f"{'model' if least == 1 else 'models'} besides the base_model"
        raise recipe.error(where, f"{method} takes {number} {what}, got {others}")
