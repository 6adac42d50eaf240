"""The base class of all spec models, and the types of their values: numbers, grids, ranges, weights."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

#: A longer grid of one dimension is taken for a typing error.
_MAX_CONTINUED = 10_000
#: Things that are counted, such as candidates or samples: more are taken for a typing error.
MOST = 1_000_000_000
#: The largest seed of torch's generators.
LARGEST_SEED = 2**63 - 1
#: The largest coefficient or parameter: products of a few are finite, as the search computes with them.
_LARGEST = 1e100
#: The longest name in bytes: names become files, and file systems take 255 bytes with the ending.
_LONGEST_NAME = 200


class SpecModel(BaseModel):
    """A frozen model that refuses unknown keys; the docstring under a field is its description in the JSON schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _short_enough(name: str) -> str:
    if (size := len(name.encode())) > _LONGEST_NAME:
        raise ValueError(f"must have at most {_LONGEST_NAME} bytes, as it names files, got {size}")
    return name


#: Bounds the length of a name.
ShortName = AfterValidator(_short_enough)


def _expand(values: object) -> object:
    """Fill in the "..." of [0.0, 0.1, ..., 1.0]."""
    if not isinstance(values, list) or "..." not in values:
        return values
    i = values.index("...")
    if i < 2 or i != len(values) - 2:
        raise ValueError("'...': must have at least two numbers before it and exactly one after it")
    neighbours = [values[i - 2], values[i - 1], values[-1]]
    if not all(isinstance(v, int | float) and -_LARGEST <= v <= _LARGEST for v in neighbours):
        raise ValueError(f"'...': must be between numbers of at most {_LARGEST:g}, got {str(values)[:200]}")
    first, second, last = map(float, neighbours)
    step = second - first
    count = (last - second) / step if step else -1.0
    if count > _MAX_CONTINUED:
        raise ValueError(f"'...': at most {_MAX_CONTINUED:,} values, got steps of {step:g} up to {last:g}")
    if count < 0 or abs(count - round(count)) > 1e-6:
        raise ValueError(f"'...': {last:g} cannot be reached from {second:g} in steps of {step:g}")
    return [*values[:i], *(round(second + step * (k + 1), 10) for k in range(round(count)))]


Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
_Written = Annotated[tuple[Number | Literal["..."], ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=MOST)]


class Grid(SpecModel):
    """A list of values; `...` continues a sequence: [0.0, 0.1, ..., 1.0]."""

    grid: Annotated[tuple[Number, ...], BeforeValidator(_expand, json_schema_input_type=_Written), Field(min_length=1)]
    """The values, at least one."""


class Range(SpecModel):
    """An interval that a sampler searches."""

    range: tuple[Number, Number]
    """Lowest and highest value."""
    step: float | None = Field(None, gt=0)
    """Distance between values, from the lowest one; the grid sampler needs it."""
    log: bool = False
    """Search on a logarithmic scale."""

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range: the lowest value must be below the highest, got {list(self.range)}")
        if self.log and (self.range[0] <= 0 or self.step is not None):
            raise ValueError("log: needs a lowest value above 0 and no step")
        return self


def _kind(value: object) -> str:
    """Return the form of a value, so that an error is about that form and not about every member of the union."""
    if isinstance(value, dict):
        return "<range>" if "range" in value else "<grid>"
    if isinstance(value, Grid | Range):
        return f"<{type(value).__name__.lower()}>"
    if isinstance(value, list | tuple):
        return "<list>"
    return "<word>" if isinstance(value, str) else "<number>"


_Forms = Annotated[Number, Tag("<number>")] | Annotated[Grid, Tag("<grid>")] | Annotated[Range, Tag("<range>")]
_discriminator = Discriminator(
    _kind,
    custom_error_type="dimension",
    custom_error_message="must be a number, {grid: [...]} or {range: [lowest, highest]}",
)
Dimension = Annotated[_Forms, _discriminator]


def listed(value: object) -> tuple[float, ...]:
    """Return the values of a grid, the ends of a range, or the number; () for words and lists."""
    if isinstance(value, Grid):
        return value.grid
    if isinstance(value, Range):
        return value.range
    return (value,) if isinstance(value, float | int) else ()


def searched(value: object) -> "list[Grid | Range]":
    """Return the ranges, and the grids of several values, in a value, or anywhere in a part of a spec."""
    if isinstance(value, Range) or (isinstance(value, Grid) and len(value.grid) > 1):
        return [value]
    if isinstance(value, SpecModel):
        value = dict(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    return [found for part in parts for found in searched(part)]


Alpha = Annotated[_Forms | Annotated[Literal["auto", "auto_l2"], Tag("<word>")], _discriminator]


Outside = Annotated[_Forms | Annotated[Literal["alpha"], Tag("<word>")], _discriminator]


Lambdas = Annotated[
    Annotated[int, Field(ge=2, le=1001), Tag("<number>")]
    | Annotated[Grid, Tag("<grid>")]
    | Annotated[Range, Tag("<range>")]
    | Annotated[tuple[tuple[float, ...], ...], Field(min_length=1), Tag("<list>")],
    Discriminator(
        _kind,
        custom_error_type="lambdas",
        custom_error_message="must be a number of points, {grid: [...]}, {range: [0, 1]} or a list of lists of weights",
    ),
]


def _word_or_number(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<number>"


_Auto = Annotated[Literal["auto"], Tag("<word>")]
CountOrAuto = Annotated[
    Annotated[int, Field(ge=1, le=100_000), Tag("<number>")] | _Auto, Discriminator(_word_or_number)
]
AmountOrAuto = Annotated[
    Annotated[float, Field(ge=0, le=10_000), Tag("<number>")] | _Auto, Discriminator(_word_or_number)
]


#: The word for a beta that follows alpha.
ONE_MINUS_ALPHA = "1 - alpha"


def _one_minus_alpha(value: str) -> str:
    if value.replace(" ", "") != "1-alpha":
        raise ValueError(f"must be a number, a grid, a range or {ONE_MINUS_ALPHA!r}, got {value!r}")
    return ONE_MINUS_ALPHA


Beta = Annotated[_Forms | Annotated[str, AfterValidator(_one_minus_alpha), Tag("<word>")], _discriminator]
ParamDimension = Annotated[
    _Forms | Annotated[str, Tag("<word>")] | Annotated[tuple[Dimension, ...], Tag("<list>")], _discriminator
]


#: How far the sum of weights may be from 1; rounded weights such as 0.333 three times are refused.
_TOLERANCE = 1e-6


def check_lambdas(lambdas: Lambdas) -> None:
    """Require weights on the simplex.

    Raises:
        ValueError: if a weight is outside [0, 1] or a list of weights does not sum to 1.
    """
    if isinstance(lambdas, tuple):
        for weights in lambdas:
            if any(w < 0 for w in weights) or abs(math.fsum(weights) - 1) > _TOLERANCE:
                raise ValueError(f"lambdas: weights must be at least 0 and sum to 1, got {list(weights)}")
    elif not isinstance(lambdas, int):
        low, high = min(listed(lambdas)), max(listed(lambdas))
        if low < 0 or high > 1:
            raise ValueError(f"lambdas: must be in [0, 1], got {low if low < 0 else high:g}")
