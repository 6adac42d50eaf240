"""`arena`: merge methods times profiles over depth, each searched with the same budget; written out as arms."""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pipeline.spec.arms import Merge, ScalingSpec
from pipeline.spec.extends import merge_over
from pipeline.spec.values import Grid, Number, Range, ShortName, SpecModel, searched

#: The profile that every other one must beat.
CONSTANT = "constant"
#: Functions that are a list of values -> the parameter. A profile that says no ranges searches so many of them.
_FREE_VALUES, _VALUES = {"piecewise": "knots", "grouped": "factors"}, 3
#: Exponents of power that such a profile searches.
_EXPONENTS = (0.25, 4.0)
_Label = Annotated[str, Field(pattern=r"^[\w][\w .,()=-]*$"), ShortName]


def _by_name(field: str) -> BeforeValidator:
    """Accept a list of names, and a name in place of a mapping: [ties] is {ties: {method: ties}}."""

    def mapped(value: object) -> object:
        if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
            value = {name: name for name in value}
        if not isinstance(value, Mapping):
            return value
        return {label: {field: entry} if isinstance(entry, str) else entry for label, entry in value.items()}

    return BeforeValidator(mapped, json_schema_input_type=tuple[str, ...] | dict[str, str | dict[str, Any]])


class Budget(SpecModel):
    """What each arm of an arena may spend."""

    evaluations: int = Field(ge=2, le=1_000_000)
    """Candidates that each arm scores on validation; its reversed control takes as many."""


class Arena(SpecModel):
    """Every method with every profile, as arms of one budget, ranked in the report."""

    methods: Annotated[dict[_Label, Merge], _by_name("method"), Field(min_length=1)]
    """Merge methods: a list of names, or a mapping of labels to merges with their parameters."""
    profiles: Annotated[dict[_Label, ScalingSpec], _by_name("function"), Field(min_length=1)]
    """Profiles over depth: names of functions, or a mapping of labels to scalings; constant always takes part."""
    budget: Budget
    """What each arm may spend."""
    lambdas: tuple[Number, Number] = (0.0, 2.0)
    """Lowest and highest coefficient that a profile without values of its own searches."""
    sets: dict[_Label, Annotated[tuple[str, ...], Field(min_length=1)] | None] = {}
    """Label -> experts that are merged, null for all: one table of the report for each."""

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
    return {"controls": ["reversed"], **data, "arms": merge_over(arms, own) if isinstance(own, dict) else own}


def arms_of(arena: Arena) -> dict[str, tuple[str, str, str]]:
    """Return arm -> its set, method and profile; a constant profile adds nothing to the arm's name.

    Example:
        >>> arena = Arena.model_validate({"methods": ["sum"], "profiles": ["sqrt"], "budget": {"evaluations": 9}})
        >>> arms_of(arena)
        {'sum': ('', 'sum', 'constant'), 'sum + sqrt': ('', 'sum', 'sqrt')}
    """
    profiles = [CONSTANT, *(label for label in arena.profiles if label != CONSTANT)]
    return {
        f"{method}{f' + {profile}' * (profile != CONSTANT)}{label and f', {label}'}": (label, method, profile)
        for label, method, profile in product(arena.sets or ("",), arena.methods, profiles)
    }


def _arm(arena: Arena, label: str, method: str, profile: str) -> dict[str, Any]:
    merge = arena.methods[method].model_dump(mode="json", exclude_unset=True)
    scaling = arena.profiles.get(profile, ScalingSpec())
    chosen = scaling if scaling.model_fields_set - {"function"} else _default_profile(scaling.function, arena.lambdas)
    shape = chosen.model_dump(mode="json", exclude_unset=True)
    arm: dict[str, Any] = {"merge": merge, "scaling": shape}
    if any(searched(part) for part in (arena.methods[method], chosen)):
        arm["search"] = {"trials": arena.budget.evaluations}
    return arm | ({"experts": list(experts)} if label and (experts := arena.sets[label]) else {})


def _default_profile(function: str, lambdas: tuple[float, float]) -> ScalingSpec:
    """Return the ranges of a profile that says none: its lambda reaches from the lowest to the highest at least."""
    low, high = lambdas
    middle = (low + high) / 2
    whole = Range(range=(low, high))
    if function == CONSTANT:
        return ScalingSpec(alpha=whole)
    if values := _FREE_VALUES.get(function):
        return ScalingSpec(function=function, alpha=0, beta=1, params={values: (whole,) * _VALUES}, outside=whole)
    params = {"p": Range(range=_EXPONENTS, log=True)} if function == "power" else {}
    alpha, beta = Range(range=(low, middle)), Range(range=(0, high - middle))
    return ScalingSpec(function=function, alpha=alpha, beta=beta, params=params)
