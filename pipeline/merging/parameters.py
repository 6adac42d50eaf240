"""Declared parameters of merge methods and scaling functions, and look-ups by name. Free of torch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.recipe import ParamValue
from tasks.registry import near as near_names

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: validation of specs, search spaces and the command line derive from it.

    Attributes:
        name: as users write it.
        doc: one line for people.
        default: the value where none is given.
        kind: "float", or "floats" for a sequence of at least `min_length` of them.
        low: lower bound; excluded where `open_low`.
        high: upper bound, included.
        open_low: whether `low` itself is refused.
        min_length: of a "floats" parameter.
    """

    name: str
    doc: str
    default: ParamValue
    kind: Literal["float", "floats"] = "float"
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    min_length: int = 1

    @property
    def range(self) -> str:
        """The allowed interval for people, such as "(0, inf)"."""
        left = "(" if self.open_low or math.isinf(self.low) else "["
        return f"{left}{self.low:g}, {self.high:g}{')' if math.isinf(self.high) else ']'}"

    def check(self, value: ParamValue) -> ParamValue:
        """Return `value` if it is allowed.

        Raises:
            ValueError: the wrong kind, too few numbers, or a number outside the range.
        """
        numbers = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) != (self.kind == "floats") or any(isinstance(n, str) for n in numbers):
            expected = "a number" if self.kind == "float" else "a sequence of numbers"
            raise ValueError(f"{self.name}: must be {expected}, got {value!r}")
        if len(numbers) < self.min_length:
            raise ValueError(f"{self.name}: must have at least {self.min_length} numbers, got {len(numbers)}")
        for number in numbers:
            if not self._allows(float(number)):
                raise ValueError(f"{self.name}: must be in {self.range}, got {number}")
        return value

    def parse(self, text: str) -> ParamValue:
        """Read a value from the command line: a number, or numbers with commas between them.

        Raises:
            ValueError: as `check`.
        """
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            expected = "a number" if self.kind == "float" else "numbers with commas between them"
            raise ValueError(f"{self.name}: must be {expected}, got {text!r}") from None
        return self.check(numbers[0] if self.kind == "float" and len(numbers) == 1 else numbers)

    def _allows(self, number: float) -> bool:
        above = self.low < number if self.open_low else self.low <= number
        return math.isfinite(number) and above and number <= self.high


def resolve(parameters: Iterable[Parameter], given: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
    """The value of each declared parameter, checked; what is given for others is not looked at.

    A recipe carries the parameters of its method and of its scaling function together, so neither may refuse the rest.

    Raises:
        ValueError: a value that its parameter does not allow.
    """
    return {p.name: p.check(given.get(p.name, p.default)) for p in parameters}


def look_up(registry: Mapping[str, _T], name: str, what: str) -> _T:
    """The entry called `name`.

    Raises:
        ValueError: unknown; near names are suggested.
    """
    if name not in registry:
        raise ValueError(f"{what}: unknown name {name!r}{near(name, registry)}")
    return registry[name]


def near(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: near names, or else all of them."""
    return f"; {near_names(name, known)}"
