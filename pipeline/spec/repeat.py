"""`repeat`: named sets of values over which a spec's arms, exhibits and lists are repeated, before it is validated.

A variable has named values, which may have fields. `{set}` stands for the name of a value of the variable `set`, and
`{set.experts}` for its field. What repeats is an entry of a mapping whose key has `{set}`, or an item of a list in
which `{set}` occurs. Neighbours repeat together; the variable that is declared first repeats outermost. An entry that
is written out lies over an earlier one that is repeated and has its name, and the other way round, as with `extends`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard, TypeVar

from pipeline.spec.extends import merge_over
from tasks.registry import near

KEY = "repeat"
#: More entries than any study has; variables multiply.
_MOST = 20_000
#: Variable -> name of a value -> its fields.
Variables: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]
_T = TypeVar("_T")


def repeated(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a spec with its `repeat` carried out; without one it is returned as it is.

    Args:
        data: the spec's content.
        source: its name in errors.

    Raises:
        ValueError: if `repeat` is not variables with values, a text names an unknown field, or a variable is used where
            nothing can be repeated, or nowhere.

    Example:
        >>> spec = {"repeat": {"set": {"two": {"experts": ["a", "b"]}, "all": {"experts": None}}}}
        >>> repeated({**spec, "arms": {"sum, {set}": {"merge": "sum", "experts": "{set.experts}"}}}, "spec")["arms"]
        {'sum, two': {'merge': 'sum', 'experts': ['a', 'b']}, 'sum, all': {'merge': 'sum', 'experts': None}}
    """
    if KEY not in data:
        return dict(data)
    rest = {name: value for name, value in data.items() if name != KEY}
    try:
        variables = _variables(data[KEY])
        found = _Repetition(variables).mapping(rest)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return found


def _variables(given: object) -> Variables:
    if not isinstance(given, dict) or not given:
        raise ValueError(f"{KEY}: must be a mapping of variables, as in {{set: [two, all]}}")
    return {name: _values(name, values) for name, values in given.items()}


def _values(variable: object, given: object) -> dict[str, dict[str, Any]]:
    where = f"{KEY}.{variable}"
    if not isinstance(variable, str) or not variable.isidentifier():
        raise ValueError(f"{where}: must be a word of letters, digits and underscores")
    values = {value: {} for value in given} if _is_texts(given) else given
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{where}: must be names, as in [two, all], or names with fields, as in {{two: {{size: 2}}}}")
    for value, fields in values.items():
        if not isinstance(fields, dict | None):
            raise ValueError(f"{where}.{value}: must be a mapping of fields, got {fields!r}")
    return {str(value): fields or {} for value, fields in values.items()}


def _is_texts(given: object) -> TypeGuard[list[str]]:
    return isinstance(given, list) and all(isinstance(value, str) for value in given)


@dataclass
class _Repetition:
    """Repeats whatever names a variable.

    Attributes:
        variables: those that are not bound yet, the outermost first.
    """

    variables: Variables
    count: int = 0

    def __post_init__(self) -> None:
        self._pattern = re.compile(rf"\{{({'|'.join(self.variables)})(?:\.(\w+))?\}}")
        self._used: set[str] = set()

    def mapping(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole spec, repeated."""
        found = self._node(data)
        if left := self._needed(found):
            raise ValueError(
                f"'{{{left}}}' stands in no key of a mapping and in no list, so nothing can be repeated for it"
            )
        if unused := [name for name in self.variables if name not in self._used]:
            raise ValueError(
                f"{KEY}.{unused[0]}: is used nowhere: write {{{unused[0]}}} where it repeats, or remove it"
            )
        assert isinstance(found, dict)
        return found

    def _node(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {key: self._node(value) for key, value in self._entries(node).items()}
        if isinstance(node, list):
            return [self._node(item) for item in self._repeat(node, self._needs)]
        return node

    def _entries(self, node: Mapping[Any, Any]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in self._repeat(list(node.items()), lambda entry: self._named(entry[0])):
            if key in found and key not in node:
                raise ValueError(f"{KEY}: makes {key!r} twice")
            found[key] = merge_over({key: found[key]}, {key: value})[key] if key in found else value
        return found

    def _repeat(self, items: list[_T], named: Callable[[_T], Iterable[str]]) -> list[_T]:
        """Repeat neighbours that name the same outermost variable, value by value."""
        found: list[_T] = []
        start = 0
        while start < len(items):
            variable = self._outermost(named(items[start]))
            if variable is None:
                found.append(items[start])
                start += 1
                continue
            end = start
            while end < len(items) and variable in named(items[end]):
                end += 1
            for value in self.variables[variable]:
                found += self._repeat([self._bound(item, variable, value) for item in items[start:end]], named)
            start = end
            self._used.add(variable)
        self.count += len(found)
        if self.count > _MOST:
            raise ValueError(f"{KEY}: makes more than {_MOST:,} entries")
        return found

    def _outermost(self, names: Iterable[str]) -> str | None:
        known = set(names)
        return next((name for name in self.variables if name in known), None)

    def _named(self, key: object) -> list[str]:
        return [name for name, _ in self._pattern.findall(key)] if isinstance(key, str) else []

    def _needs(self, node: object) -> list[str]:
        """Return the variables for which an item of a list is repeated; keys and lists in it repeat for their own."""
        if isinstance(node, dict):
            return [n for key, value in node.items() for n in self._needs(value) if n not in self._named(key)]
        return self._named(node)

    def _needed(self, node: object) -> str | None:
        """Return a variable that is left in a text."""
        if isinstance(node, dict | list):
            parts = [*node.keys(), *node.values()] if isinstance(node, dict) else node
            return next((left for part in parts if (left := self._needed(part))), None)
        return next(iter(self._named(node)), None)

    def _bound(self, node: Any, variable: str, value: str) -> Any:
        if isinstance(node, tuple):
            return tuple(self._bound(part, variable, value) for part in node)
        if isinstance(node, list):
            return [self._bound(part, variable, value) for part in node]
        if isinstance(node, dict):
            return {self._bound(k, variable, value): self._bound(v, variable, value) for k, v in node.items()}
        return self._text(node, variable, value) if isinstance(node, str) else node

    def _text(self, text: str, variable: str, value: str) -> Any:
        whole = self._pattern.fullmatch(text)
        if whole and whole[1] == variable:
            return self._field(variable, value, whole[2])
        return self._pattern.sub(lambda m: str(self._field(variable, value, m[2])) if m[1] == variable else m[0], text)

    def _field(self, variable: str, value: str, field: str | None) -> Any:
        if not field:
            return value
        fields = self.variables[variable][value]
        if field not in fields:
            raise ValueError(f"{KEY}.{variable}.{value}: has no {field!r}, which is used; {near(field, fields)}")
        return fields[field]
