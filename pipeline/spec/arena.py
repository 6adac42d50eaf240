"""`arena`: merges and edits times profiles over depth, each searched with the same budget; written out as arms."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from pipeline.spec.arms import Merge, Names, ScalingSpec, check_edit
from pipeline.spec.extends import merge_over
from pipeline.spec.values import Grid, Number, Range, ShortName, SpecModel, repeated, searched

#: The profile that every other one must beat.
CONSTANT = "constant"
#: The arm that edits each expert by one constant; with a profile, "edit + PROFILE".
EDIT = "edit"
#: Functions that are a list of values -> the parameter. A profile that says no ranges searches so many of them.
_FREE_VALUES, _VALUES, _MOST_VALUES = {"piecewise": "knots", "grouped": "factors"}, 3, 50
#: Exponents of power that such a profile searches.
_EXPONENTS = (0.25, 4.0)
_Label = Annotated[str, Field(pattern=r"^[\w][\w .,()=-]*$"), ShortName]
_Entry = str | dict[str, Any]
_Values = Annotated[int, Field(ge=2, le=_MOST_VALUES)]
_LAMBDAS = TypeAdapter(tuple[Number, Number])


def _pairs(value: object) -> list[tuple[Any, Any]] | None:
    """Return label and entry of a mapping, or of a list of names and mappings; None if it is neither."""
    if isinstance(value, Mapping):
        return [*value.items()]
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str | Mapping) for entry in value):
        return None
    return [pair for entry in value for pair in ([(entry, entry)] if isinstance(entry, str) else [*entry.items()])]


def _by_name(field: str, entry: object) -> BeforeValidator:
    """Accept lists, and a name in place of a mapping: [ties] is {ties: {method: ties}}; `entry` is an entry's type."""

    def mapped(value: object) -> object:
        pairs = _pairs(value)
        if pairs is None:
            return value
        if twice := repeated(str(label) for label, given in pairs if label != given):
            raise ValueError(f"each label may be there once, got {twice} more than once")
        return {label: {field: given} if isinstance(given, str) else given for label, given in pairs}

    mapping = dict[str, entry]  # type: ignore[valid-type]
    return BeforeValidator(mapped, json_schema_input_type=tuple[str | mapping, ...] | mapping)


class Budget(SpecModel):
    """What each arm of an arena may spend."""

    evaluations: int = Field(ge=2, le=1_000_000)
    """Candidates that each arm scores on validation; its reversed control takes as many."""


class Arena(SpecModel):
    """Every method, and the edit of each expert, with every profile: arms of one budget, ranked in the report."""

    methods: Annotated[dict[_Label, Merge], _by_name("method", _Entry)] = {}
    """Merge methods: a list of names, or a mapping of labels to merges with their parameters."""
    edit: Names | None = None
    """Beside or instead of methods: each_expert, or names of experts, which every profile edits one at a time."""
    profiles: Annotated[dict[_Label, ScalingSpec], _by_name("function", _Entry | _Values), Field(min_length=1)]
    """Profiles over depth: functions, {grouped: 5} for 5 values, or label -> scaling; constant always takes part."""
    budget: Budget
    """What each arm may spend."""
    lambdas: tuple[Number, Number] = (0.0, 2.0)
    """Lowest and highest coefficient that a profile without values of its own searches."""
    sets: dict[_Label, Annotated[tuple[str, ...], Field(min_length=1)] | None] = {}
    """Label -> experts that are merged, null for all: one table of the report for each."""

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, data: Any) -> Any:
        pairs = _pairs(data.get("profiles")) if isinstance(data, Mapping) else None
        if pairs is None or not any(isinstance(entry, int) for _, entry in pairs):
            return data
        lambdas = cls.model_fields["lambdas"].default
        if "lambdas" in data:
            with suppress(ValidationError):  # the only error is then that of lambdas
                low, high = _LAMBDAS.validate_python(data["lambdas"])
                lambdas = (low, high) if low < high else lambdas
        return {**data, "profiles": [dict([_of_values(*pair, lambdas)]) for pair in pairs]}

    @model_validator(mode="after")
    def _contestants(self) -> "Arena":
        if not self.methods and self.edit is None:
            raise ValueError("needs methods (merges), edit (such as each_expert), or both")
        if EDIT in self.methods and self.edit is not None:
            raise ValueError(f"methods.{EDIT}: this label is taken by the edits; use another one")
        if self.sets and not self.methods:
            raise ValueError("sets: are of merged experts, and this arena has no methods: name the experts in edit")
        check_edit(self.edit or ())
        return self

    @model_validator(mode="after")
    def _searchable(self) -> "Arena":
        if self.lambdas[0] >= self.lambdas[1]:
            raise ValueError(f"lambdas: the lowest must be below the highest, got {list(self.lambdas)}")
        if of := [label for label, merge in self.methods.items() if merge.of or merge.lambdas is not None]:
            raise ValueError(f"methods.{of[0]}: needs a method that gives one model; write this merge as an arm")
        if auto := [label for label, merge in self.methods.items() if merge.params.get("tall_lambda") == "auto"]:
            raise ValueError(f"methods.{auto[0]}.params.tall_lambda: auto searches beyond the budget: write a range")
        shape = self.profiles.get(CONSTANT, ScalingSpec()).function
        if shape != CONSTANT:
            raise ValueError(f"profiles.{CONSTANT}: must have the function constant, got {shape}: use another label")
        for field, parts in (("methods", self.methods), ("profiles", self.profiles)):
            for label, part in parts.items():
                if any(isinstance(v, Grid) or v.step is not None for v in searched(part)):
                    raise ValueError(
                        f"{field}.{label}: a grid scores as many candidates as it has points: write {{range: [lowest, "
                        f"highest]}}, so that every arm has the same budget, or write this arm under arms"
                    )
        return self


def with_arena(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec with the arms of its arena written out below its own, which lie over them.

    A spec without an arena, or with one that is not valid, is returned as it is.

    Args:
        data: the spec's content.

    Example:
        >>> arena = {"methods": ["sum"], "profiles": ["linear"], "budget": {"evaluations": 20}}
        >>> sorted(with_arena({"arena": arena})["arms"])
        ['sum', 'sum + linear']
    """
    try:
        arena = Arena.model_validate(data.get("arena"))
    except ValidationError:
        return dict(data)
    own = data.get("arms") or {}
    arms = {name: _arm(arena, *place) for name, place in arms_of(arena).items()}
    controls = ["reversed"] if arena.edit is None else ["equal", "reversed"]
    return {"controls": controls, **data, "arms": merge_over(arms, own) if isinstance(own, dict) else own}


def arms_of(arena: Arena) -> dict[str, tuple[str, str, str]]:
    """Return arm -> its set, method and profile, edits first; a constant profile adds nothing to the arm's name.

    Example:
        >>> arena = Arena.model_validate({"methods": ["sum"], "profiles": ["sqrt"], "budget": {"evaluations": 9}})
        >>> arms_of(arena)
        {'sum': ('', 'sum', 'constant'), 'sum + sqrt': ('', 'sum', 'sqrt')}
    """
    profiles = [CONSTANT, *(label for label in arena.profiles if label != CONSTANT)]
    edits = product(("",), (EDIT,) if arena.edit else (), profiles)
    return {
        f"{method}{f' + {profile}' * (profile != CONSTANT)}{label and f', {label}'}": (label, method, profile)
        for label, method, profile in (*edits, *product(arena.sets or ("",), arena.methods, profiles))
    }


def _arm(arena: Arena, label: str, method: str, profile: str) -> dict[str, Any]:
    merge = arena.methods.get(method)
    scaling = arena.profiles.get(profile, ScalingSpec())
    chosen = scaling if scaling.model_fields_set - {"function"} else _default_profile(scaling.function, arena.lambdas)
    shape = chosen.model_dump(mode="json", exclude_unset=True)
    arm: dict[str, Any] = {"scaling": shape}
    arm |= {"merge": merge.model_dump(mode="json", exclude_unset=True)} if merge else {"edit": list(arena.edit or ())}
    if any(searched(part) for part in (merge, chosen)):
        arm["search"] = {"trials": arena.budget.evaluations}
    return arm | ({"experts": list(experts)} if label and (experts := arena.sets[label]) else {})


def _default_profile(function: str, lambdas: tuple[float, float]) -> ScalingSpec:
    """Return the ranges of a profile that says none: its lambda reaches from the lowest to the highest at least."""
    low, high = lambdas
    middle = (low + high) / 2
    whole = Range(range=(low, high))
    if function == CONSTANT:
        return ScalingSpec(alpha=whole)
    if function in _FREE_VALUES:
        return ScalingSpec.model_validate(_free(function, _VALUES, low, high))
    params = {"p": Range(range=_EXPONENTS, log=True)} if function == "power" else {}
    alpha, beta = Range(range=(low, middle)), Range(range=(0, high - middle))
    return ScalingSpec(function=function, alpha=alpha, beta=beta, params=params)


def _of_values(label: str, entry: object, lambdas: Sequence[Any]) -> tuple[str, object]:
    """Return label and scaling of an entry such as grouped: 5, which is called "grouped 5"; others as they are."""
    if not isinstance(entry, int):
        return label, entry
    if label not in _FREE_VALUES:
        raise ValueError(f"profiles.{label}: only {' and '.join(_FREE_VALUES)} have a number of values, got {entry}")
    if isinstance(entry, bool) or not 2 <= entry <= _MOST_VALUES:
        raise ValueError(f"profiles.{label}: must be from 2 to {_MOST_VALUES} values over depth, got {entry}")
    return f"{label} {entry}", _free(label, entry, *lambdas)


def _free(function: str, values: int, low: float, high: float) -> dict[str, Any]:
    """Return a scaling that searches so many values over depth, and one outside the blocks."""
    whole = {"range": [low, high]}
    return {
        "function": function,
        "alpha": 0,
        "beta": 1,
        "params": {_FREE_VALUES[function]: [whole] * values},
        "outside": whole,
    }
