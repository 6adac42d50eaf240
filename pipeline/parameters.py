"""Declared parameters of merge methods and scaling functions, and look-ups by name. Free of torch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.recipe import ParamValue
from tasks.registry import near as near_names

_T = TypeVar("_T")


#: What each kind of parameter must be, for errors.
_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "floats": "a sequence of numbers",
    "float_or_floats": "a number or a sequence of numbers",
}
_SEQUENCES = ("floats", "float_or_floats")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: validation of specs, search spaces and the command line derive from it.

    Attributes:
        name: as users write it.
        doc: one line for people.
        default: the value where none is given.
        kind: "float"; "int", a whole number; "floats", a sequence of at least `min_length` numbers; "float_or_floats",
            one number or such a sequence; "choice", one of the words of `choices`.
        low: lower bound of numbers; excluded where `open_low`.
        high: upper bound; excluded where `open_high`.
        open_low: whether `low` itself is refused.
        open_high: whether `high` itself is refused.
        min_length: of a sequence.
        choices: of a "choice" parameter.
    """

    name: str
    doc: str
    default: ParamValue
    kind: Literal["float", "int", "floats", "float_or_floats", "choice"] = "float"
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    min_length: int = 1
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The allowed interval for people, such as "(0, inf)"."""
        left = "(" if self.open_low or math.isinf(self.low) else "["
        return f"{left}{self.low:g}, {self.high:g}{')' if self.open_high or math.isinf(self.high) else ']'}"

    def check(self, value: ParamValue) -> ParamValue:
        """Return `value` if it is allowed; a whole number as an int.

        Raises:
            ValueError: the wrong kind, too few numbers, a number outside the range, or a word that is no choice.
        """
        if self.kind == "choice":
            return self._check_choice(value)
        numbers = value if isinstance(value, tuple) else (value,)
        fits = self.kind in _SEQUENCES if isinstance(value, tuple) else self.kind != "floats"
        if not fits or any(isinstance(number, str) for number in numbers):
            raise ValueError(f"{self.name}: must be {_EXPECTED[self.kind]}, got {value!r}")
        if isinstance(value, tuple) and len(value) < self.min_length:
            raise ValueError(f"{self.name}: must have at least {self.min_length} numbers, got {len(value)}")
        for number in numbers:
            if not self._allows(float(number)):
                raise ValueError(f"{self.name}: must be in {self.range}, got {number}")
        return self._whole(float(numbers[0])) if self.kind == "int" else value

    def parse(self, text: str) -> ParamValue:
        """Read a value from the command line: a word, a number, or numbers with commas between them, also in brackets.

        Raises:
            ValueError: as `check`.
        """
        if self.kind == "choice":
            return self.check(text)
        bracketed = self.kind in _SEQUENCES and text.startswith("[") and text.endswith("]")
        try:
            numbers = tuple(float(part) for part in (text[1:-1] if bracketed else text).split(","))
        except ValueError:
            commas = " with commas between them" if self.kind in _SEQUENCES else ""
            raise ValueError(f"{self.name}: must be {_EXPECTED[self.kind]}{commas}, got {text!r}") from None
        return self.check(numbers if bracketed or self.kind == "floats" or len(numbers) > 1 else numbers[0])

    def _check_choice(self, value: ParamValue) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError(f"{self.name}: must be one of {', '.join(self.choices)}, got {value!r}")
        return value

    def _whole(self, number: float) -> int:
        if not float(number).is_integer():
            raise ValueError(f"{self.name}: must be a whole number, got {number}")
        return int(number)

    def _allows(self, number: float) -> bool:
        above = self.low < number if self.open_low else self.low <= number
        below = number < self.high if self.open_high else number <= self.high
        return math.isfinite(number) and above and below


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
