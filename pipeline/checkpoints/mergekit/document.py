"""The file of a mergekit recipe: its fields, and errors that name the field and its line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from pipeline.spec.validation import SpecError, explain
from pipeline.spec.values import SpecModel
from pipeline.spec.yaml_reader import ValuePath, read_yaml_lines

_Type = Annotated[
    Literal["float32", "float16", "bfloat16"],
    BeforeValidator(lambda name: name.removeprefix("torch.") if isinstance(name, str) else name),
]


class Input(SpecModel):
    """A model of a merge."""

    model: str
    """A folder, or OWNER/REPO of the Hugging Face hub, with @REVISION if need be."""
    layer_range: tuple[int, int] | None = None
    """In a slice: the first layer, and the one after the last."""
    parameters: dict[str, Any] | None = None
    """Parameters of this model."""


class Slice(SpecModel):
    """Layers that are merged from the same models."""

    sources: tuple[Input, ...] = Field(min_length=1)
    """The models."""
    base_model: str | None = None
    """The base of these layers, in place of the recipe's."""
    residual_weight: Any = None
    """Not available here."""
    parameters: dict[str, Any] | None = None
    """Parameters of these layers."""


class Config(SpecModel):
    """A recipe of mergekit 0.1.5."""

    merge_method: str
    """mergekit's name of a method."""
    base_model: str | None = None
    """The model that task vectors start from, if the method has any."""
    models: tuple[Input, ...] | None = Field(None, min_length=1)
    """The models whose layers are all merged."""
    slices: tuple[Slice, ...] | None = Field(None, min_length=1)
    """Instead of models: the models of each range of layers."""
    parameters: dict[str, Any] | None = None
    """Parameters of all models and layers."""
    dtype: _Type | None = None
    """Type of the result, unless out_dtype is given."""
    out_dtype: _Type | None = None
    """Type of the result."""
    tokenizer_source: str | None = None
    """base, union or a model: all models must have one vocabulary."""
    tokenizer: Any = None
    """Not available here."""
    chat_template: Any = None
    """Not available here."""
    modules: Any = None
    """Not available here."""


#: Field of mergekit that is not available here -> what to do.
_REFUSED = {
    "modules": "is not available here: write the models or slices of a model with one module at the top",
    "tokenizer": "is not available here: vocabularies are not merged; use models of one vocabulary, and remove it",
    "chat_template": "is not available here: remove it, and put a chat_template.jinja into the merged folder",
    "residual_weight": "is not available here: remove it",
}


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe as it is in its file.

    Attributes:
        path: of the file.
        config: its content.
        lines: path of a value -> its line.
    """

    path: Path
    config: Config
    lines: Mapping[ValuePath, int]

    @property
    def slices(self) -> Sequence[tuple[ValuePath, Slice]]:
        """The slices with their paths; `models` are one slice of all layers, to which mergekit adds the base."""
        if self.config.slices is not None:
            return [(("slices", place), part) for place, part in enumerate(self.config.slices)]
        models, base = self.config.models or (), self.config.base_model
        added = () if base is None or any(m.model == base for m in models) else (Input(model=base),)
        return [((), Slice(sources=(*models, *added)))]

    @property
    def models(self) -> list[str]:
        """All models, the base first."""
        named = [self.config.base_model, *(part.base_model for _, part in self.slices)]
        names = [*named, *(source.model for _, part in self.slices for source in part.sources)]
        return list(dict.fromkeys(name for name in names if name is not None))

    def source_path(self, at: ValuePath, place: int) -> ValuePath:
        """Return the path of a model of the slice at path `at`."""
        return (*at, "sources", place) if at else ("models", place)

    def error(self, at: ValuePath, rule: str) -> SpecError:
        """Return the error about the field at a path, with its line if it is in the file."""
        return SpecError(f"{_place(self.path, self.lines, at)}{'.'.join(map(str, at))}: {rule}")


def read_recipe(path: Path) -> RecipeFile:
    """Read a recipe's fields; `parameters` are checked by `settings.Settings`.

    Raises:
        SpecError: if the file cannot be read, is no YAML, or has fields that mergekit has not or that are not available
            here; the message has the line and the path of the field.
    """
    try:
        data, lines = read_yaml_lines(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from error
    if not isinstance(data, dict) or "merge_method" not in data:
        raise SpecError(f"{path}: must be a recipe of mergekit: a mapping with merge_method and models or slices")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise SpecError("\n".join(explain(error, Config, lambda at: _place(path, lines, at)))) from None
    recipe = RecipeFile(path, config, lines)
    _check_fields(recipe)
    return recipe


def _place(path: Path, lines: Mapping[ValuePath, int], at: ValuePath) -> str:
    """Name the file, and the line of the nearest value around `at` that the file has."""
    known = next((at[:end] for end in range(len(at), 0, -1) if at[:end] in lines), None)
    return f"{path}: " if known is None else f"{path}: line {lines[known]}: "


def _check_fields(recipe: RecipeFile) -> None:
    config = recipe.config
    for name, rule in _REFUSED.items():
        for at, part in [((), config), *(recipe.slices if config.slices else ())]:
            if getattr(part, name, None) is not None:
                raise recipe.error((*at, name), rule)
    if (config.models is None) == (config.slices is None):
        raise recipe.error(("slices",) if config.slices else (), "exactly one of models and slices must be given")
    for place, model in enumerate(config.models or ()):
        if model.layer_range is not None:
            raise recipe.error(("models", place, "layer_range"), "is for the sources of slices: remove it")
    for at, part in recipe.slices:
        names = [source.model for source in part.sources]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise recipe.error((*recipe.source_path(at, place), "model"), f"is there twice, got {name!r}")
    _check_ranges(recipe)


def _check_ranges(recipe: RecipeFile) -> None:
    """Require that the slices follow each other and keep every layer in its place."""
    end = 0
    for at, part in recipe.slices if recipe.config.slices else ():
        for place, source in enumerate(part.sources):
            where = (*recipe.source_path(at, place), "layer_range")
            if source.layer_range is None:
                raise recipe.error(where, "is required")
            first = part.sources[0].layer_range
            if source.layer_range != first:
                raise recipe.error(
                    where,
                    f"must be that of the slice's first model, {list(first or ())}, got {list(source.layer_range)}: "
                    "layers of different depths are not merged here",
                )
            if source.layer_range[0] != end or source.layer_range[1] <= end:
                raise recipe.error(
                    where,
                    f"must begin with layer {end}, got {list(source.layer_range)}: a merge keeps every layer in its "
                    "place, and restacked layers are not available here",
                )
        end = (part.sources[0].layer_range or (0, 0))[1]
