"""Declared parameters of merge methods and scaling functions, and look-ups by name; without torch."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.recipe import ParamValue
from tasks.registry import near

_T = TypeVar("_T")


#: Kind of parameter -> what errors call it.
_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "floats": "a sequence of numbers",
    "float_or_floats": "a number or a sequence of numbers",
}
_SEQUENCES = ("floats", "float_or_floats")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; the validation of specs, search spaces and the command line derive from it.

    Attributes:
        name: the name that users write.
        doc: one line of help.
        default: the default value.
        kind: "float"; "int"; "floats", a sequence of at least `min_length` numbers; "float_or_floats", one number or a
            sequence; "choice", one of `choices`.
        low: lower bound of numbers.
        high: upper bound of numbers.
        open_low: whether `low` itself is refused.
        open_high: whether `high` itself is refused.
        min_length: least length of a sequence.
        choices: allowed words of a "choice".

    Example:
        >>> keep = Parameter("keep", "Per cent of entries kept.", 20.0, low=0, high=100, open_low=True)
        >>> keep.range, keep.parse("30")
        ('(0, 100]', 30.0)
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
        """The allowed interval as text, such as "(0, inf)"."""
        left = "(" if self.open_low or math.isinf(self.low) else "["
        return f"{left}{self.low:g}, {self.high:g}{')' if self.open_high or math.isinf(self.high) else ']'}"

    def check(self, value: ParamValue) -> ParamValue:
        """Return `value` if it is allowed; an "int" parameter returns an int.

        Raises:
            ValueError: if it has the wrong kind or too few numbers, is out of range, or is not one of the choices.
        """
        if self.kind == "choice":
            return self._check_choice(value)
        numbers = value if isinstance(value, tuple) else (value,)
        fits = self.kind in _SEQUENCES if isinstance(value, tuple) else self.kind != "floats"
        if not fits or any(isinstance(number, str) for number in numbers):
            hint = "".join(dict.fromkeys(map(quotes_hint, numbers)))
            raise ValueError(f"{self.name}: must be {_EXPECTED[self.kind]}, got {value!r}{hint}")
        if isinstance(value, tuple) and len(value) < self.min_length:
            raise ValueError(f"{self.name}: must have at least {self.min_length} numbers, got {len(value)}")
        for number in numbers:
            if not self._allows(float(number)):
                raise ValueError(f"{self.name}: must be in {self.range}, got {number}")
        return self._whole(float(numbers[0])) if self.kind == "int" else value

    def parse(self, text: str) -> ParamValue:
        """Read a value from the command line: a word, a number, or comma-separated numbers, in brackets or not.

        Raises:
            ValueError: if `check` refuses the value.
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
    """Return the checked value of each declared parameter; ignore the rest of `given`.

    A recipe holds the parameters of its method and of its scaling function together, so neither may refuse the others.

    Raises:
        ValueError: if a parameter does not allow its value.

    Example:
        >>> resolve([Parameter("keep", "", 20.0), Parameter("p", "", 1.0)], {"keep": 30.0, "knots": (0.0, 1.0)})
        {'keep': 30.0, 'p': 1.0}
    """
    return {p.name: p.check(given.get(p.name, p.default)) for p in parameters}


def look_up(registry: Mapping[str, _T], name: str, what: str) -> _T:
    """Return the entry called `name`; `what` is the field that names it.

    Raises:
        ValueError: if there is no such entry; the message suggests near names.

    Example:
        >>> look_up({"sum": 1, "ties": 2}, "tie", "merge.method")
        Traceback (most recent call last):
        ValueError: merge.method: unknown name 'tie'; did you mean 'ties'?
    """
    require_known(what, name, registry, "name")
    return registry[name]


def require_known(where: str, name: str, known: Collection[str], kind: str) -> None:
    """Require that `name` is one of `known`; `where` is the field and `kind` what it names, such as "task".

    Raises:
        ValueError: if it is not; the message suggests near names.
    """
    if name not in known:
        raise ValueError(f"{where}: unknown {kind} {name!r}; {near(name, known)}")


def quotes_hint(value: object) -> str:
    """Return the end of an error about text where a number is needed: what to do if the text is a number, or "".

    Example:
        >>> quotes_hint("0.5"), quotes_hint("ten")
        (': remove its quotes', '')
    """
    try:
        return ": remove its quotes" if isinstance(value, str) and math.isfinite(float(value)) else ""
    except ValueError:
        return ""
