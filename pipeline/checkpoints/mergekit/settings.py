"""The parameters of a recipe as functions of a tensor: filters by name, and lists of values over depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoints.mergekit.document import Input, RecipeFile, Slice
from pipeline.checkpoints.mergekit.fields import FIELDS, FIXED, KNOWN, MISSING, Field
from pipeline.parameters import quotes_hint
from pipeline.spec.yaml_reader import ValuePath
from tasks.registry import near

Value = float | bool


@dataclass(frozen=True, slots=True)
class Condition:
    """Values for the tensors whose names hold a text.

    Attributes:
        filter: the text; None for all tensors.
        values: one, or several at evenly spaced depths.
    """

    filter: str | None
    values: tuple[Value, ...]

    def holds(self, name: str) -> bool:
        """Whether the values are for a tensor."""
        return self.filter in (None, "*") or (self.filter or "") in name

    def at(self, depth: float) -> Value:
        """Interpolate numbers between the values around a depth; take the lower one of true and false."""
        place = depth * (len(self.values) - 1)
        low = int(place)
        first, second = self.values[low], self.values[min(len(self.values) - 1, low + 1)]
        return first if isinstance(first, bool) else (1 - (place - low)) * first + (place - low) * second


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter where a recipe gives it: the first condition that holds decides.

    Attributes:
        field: what is set.
        at: path of the value in the file.
        conditions: in their order.
    """

    field: Field
    at: ValuePath
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Scopes:
    """The settings of a slice, by parameter, from the ones that go first.

    Attributes:
        shared: of all models of the slice.
        models: of each of its models.
    """

    shared: Mapping[str, Sequence[Setting]]
    models: Sequence[Mapping[str, Sequence[Setting]]]


def method_fields(recipe: RecipeFile) -> Mapping[str, Field]:
    """Return the parameters of the recipe's method by name.

    Raises:
        SpecError: if the method is not available.
    """
    name = recipe.config.merge_method
    if name in FIELDS:
        return {field.name: field for field in FIELDS[name]}
    known = f"available are {', '.join(FIELDS)}"
    if name in MISSING:
        raise recipe.error(("merge_method",), f"{name!r} of mergekit is not available here; {known}")
    raise recipe.error(("merge_method",), f"unknown name {name!r}; {near(name, FIELDS)}; {known}")


def read_settings(recipe: RecipeFile) -> tuple[list[Scopes], list[str]]:
    """Read the parameters of every slice of a recipe.

    Returns:
        The settings of each slice, and notes on parameters that have no effect.

    Raises:
        SpecError: if a parameter is unknown, is given where mergekit does not read it, or has a value that it cannot
            have; the message has the path and the line.
    """
    fields, notes = method_fields(recipe), dict[str, None]()
    whole = _read(recipe, ("parameters",), recipe.config.parameters, fields, notes)
    found = []
    for at, part in recipe.slices:
        shared = [_read(recipe, (*at, "parameters"), part.parameters, fields, notes), whole] if at else [whole]
        own = [_of_model(recipe, at, part, place, fields, notes) for place in range(len(part.sources))]
        found.append(Scopes(_by_name(shared), [_by_name([settings, *shared]) for settings in own]))
    return found, list(notes)


def _of_model(
    recipe: RecipeFile, at: ValuePath, part: Slice, place: int, fields: Mapping[str, Field], notes: dict[str, None]
) -> Mapping[str, Setting]:
    source: Input = part.sources[place]
    where = (*recipe.source_path(at, place), "parameters")
    for name in source.parameters or {}:
        if name in fields and fields[name].scope == "all":
            raise recipe.error(
                (*where, name),
                f"{recipe.config.merge_method} takes it for all models: move it to parameters at the end",
            )
    return _read(recipe, where, source.parameters, fields, notes)


def _by_name(scopes: Sequence[Mapping[str, Setting]]) -> dict[str, list[Setting]]:
    names = dict.fromkeys(name for scope in scopes for name in scope)
    return {name: [scope[name] for scope in scopes if name in scope] for name in names}


def _read(
    recipe: RecipeFile,
    at: ValuePath,
    given: Mapping[str, Any] | None,
    fields: Mapping[str, Field],
    notes: dict[str, None],
) -> dict[str, Setting]:
    found = {}
    for name, value in (given or {}).items():
        where = (*at, name)
        if name in fields:
            found[name] = Setting(fields[name], where, _conditions(recipe, where, fields[name], value))
        elif name in FIXED:
            if value != FIXED[name]:
                raise recipe.error(where, f"is always {FIXED[name]:g} here, got {value}: remove it")
        elif name in KNOWN:
            notes[f"{'.'.join(map(str, where))}: has no effect on {recipe.config.merge_method}"] = None
        else:
            raise recipe.error(where, f"unknown parameter of {recipe.config.merge_method}; {near(name, fields)}")
    return found


def _conditions(recipe: RecipeFile, at: ValuePath, field: Field, value: Any) -> tuple[Condition, ...]:
    conditional = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
    if not conditional:
        return (Condition(None, _values(recipe, at, field, value)),)
    parts = [((), value)] if isinstance(value, dict) else [((place,), part) for place, part in enumerate(value)]
    return tuple(_condition(recipe, (*at, *place), field, part) for place, part in parts)


def _condition(recipe: RecipeFile, at: ValuePath, field: Field, part: Any) -> Condition:
    if not isinstance(part, dict) or "value" not in part or part.keys() - {"value", "filter"}:
        raise recipe.error(at, "must be a number, a list of numbers, or a list of {filter: TEXT, value: ...}")
    text = part.get("filter")
    if text is not None and not isinstance(text, str):
        raise recipe.error((*at, "filter"), f"must be text, which is found anywhere in names of tensors, got {text!r}")
    return Condition(text, _values(recipe, (*at, "value"), field, part["value"]))


def _values(recipe: RecipeFile, at: ValuePath, field: Field, value: Any) -> tuple[Value, ...]:
    if isinstance(value, list):
        if not value:
            raise recipe.error(at, "must have at least one value, got []")
        return tuple(_value(recipe, (*at, place), field, part) for place, part in enumerate(value))
    return (_value(recipe, at, field, value),)


def _value(recipe: RecipeFile, at: ValuePath, field: Field, value: Any) -> Value:
    if field.numbers is None:
        if not isinstance(value, bool):
            raise recipe.error(at, f"must be true or false, got {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise recipe.error(at, f"must be a number, got {value!r}{quotes_hint(value)}")
    return check_number(recipe, at, field, value)


def check_number(recipe: RecipeFile, at: ValuePath, field: Field, value: float) -> float:
    """Return a number if the field allows it; a whole one as int.

    Raises:
        SpecError: if it does not.
    """
    assert field.numbers is not None, "a number"
    try:
        checked = field.numbers.check(value)
    except ValueError as error:
        raise recipe.error(at, str(error).partition(": ")[2]) from None
    assert isinstance(checked, int | float)
    return checked
