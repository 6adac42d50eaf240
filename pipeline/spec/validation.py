"""Builds models from mappings; errors name the field, the rule and the value got, in the words of this project."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.parameters import quotes_hint
from tasks.registry import near

_M = TypeVar("_M", bound=BaseModel)
#: An error shows at most this many characters of a value, and of a name; and a spec at most this many errors.
_SHOWN, _SHOWN_NAME, _MOST_ERRORS = 500, 100, 20
#: A part of pydantic's path that is no field: the tag of a union's member, a validator, the key of a mapping.
_NO_FIELD = re.compile(r"<[a-z]+>|function-\w+\[.*\]|\[key\]", re.DOTALL)
#: The beginning of an error of a check between fields: its first field.
_INNER = re.compile(r"(\w+)(?:\.[^:]+)?: ")
#: Type of pydantic's error -> the rule.
_RULES = {
    "string_type": "must be text",
    "dict_type": "must be a mapping, as in {name: value}",
    "model_type": "must be a mapping of fields",
    "tuple_type": "must be a list, as in [a, b]",
    "list_type": "must be a list, as in [a, b]",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "finite_number": "must be a finite number",
}
#: Pydantic's words -> ours.
_WORDS = (
    (r"^Value error, ", ""),
    (r"^Input should be ", "must be "),
    (r"^(String|Tuple|Dictionary|List|Value) should have ", "must have "),
    (r" after validation, not (\d+)", r", got \1"),
    (r"greater than or equal to", "at least"),
    (r"less than or equal to", "at most"),
)
#: A pattern of names: a letter, digit or underscore, then more of these or of a few other characters.
_NAME_PATTERN = re.compile(r"\^\[\\w\]\[\\w(.*)\]\*\$")


class SpecError(ValueError):
    """The spec is invalid; the message has one line for each error."""


def validate(kind: type[_M], data: dict[str, Any], source: str) -> _M:
    """Build a spec of `kind` from a mapping; `source` is its name in errors.

    Raises:
        SpecError: if the mapping does not fit the schema.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise SpecError("\n".join(f"{source}: {line}" for line in explain(error, kind))) from None


def explain(
    error: ValidationError, kind: type[BaseModel], place: Callable[[tuple[str | int, ...]], str] = lambda path: ""
) -> list[str]:
    """Return each different error as "field path: rule, got value", the first twenty and the number of the others.

    Args:
        error: of pydantic.
        kind: of the model.
        place: path of a value -> what stands before its error, such as its line.
    """
    found = error.errors(include_url=False)
    lines = list(dict.fromkeys(place(e["loc"]) + _line(e, kind) for e in found[:_MOST_ERRORS]))
    left = len(found) - _MOST_ERRORS
    return [*lines, f"and {left:,} more errors"] if left > 0 else lines


def _line(error: Any, kind: type[BaseModel]) -> str:
    unknown = error["type"] == "extra_forbidden"
    *parts, last = [*map(str, error["loc"])] or [""]
    # An unknown key, and a wrong one, which "[key]" follows, may look like one of pydantic's own parts.
    key = last if unknown else parts.pop() if last == "[key]" else ""
    fields = [p for p in (*parts, *([] if key else [last])) if not _NO_FIELD.fullmatch(p)]
    path = [_cut(p, _SHOWN_NAME) for p in (*fields, *([key] if key else []))]
    where = ".".join(path)
    if unknown:
        known = _keys_at(path[:-1], kind)
        return f"{where}: unknown key; {'it has no place here' if path[-1] in known else near(path[-1], known)}"
    if error["type"] == "missing":
        return f"{where}: is required"
    message = _rule(error)
    if error["type"] == "value_error" and (inner := _INNER.match(message)) and inner[1] in _keys_at(path, kind):
        return f"{where}.{message}" if where else message
    if not where:
        return message
    got = error.get("input")
    shown = f", got {_cut(repr(got), _SHOWN)}" if _is_shown(got) and "got" not in message else ""
    hint = _hint(error, got)
    return f"{where}: {message[0].lower() + message[1:]}{shown}{hint}"


def _rule(error: Any) -> str:
    message = str(error["msg"])
    if error["type"] == "string_pattern_mismatch" and (found := _NAME_PATTERN.fullmatch(error["ctx"]["pattern"])):
        return f"must begin with a letter, digit or _, and hold only these and any of {found.group(1)!r}"
    for words, ours in _WORDS:
        message = re.sub(words, ours, message)
    message = re.sub(r"\d{20,}", lambda digits: f"{float(digits.group()):g}", message)
    if "<word>" in error["loc"] and error["type"] == "literal_error":  # a word instead of a number
        return message.replace("must be ", "must be a number or ")
    return _RULES.get(error["type"], message)


def _is_shown(value: object) -> bool:
    return isinstance(value, str | int | float | list) or value is None


def _hint(error: Any, got: object) -> str:
    """Return what to do, if it is clear."""
    if error["type"] == "literal_error" and isinstance(got, str) and not quotes_hint(got):
        known = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        close = near(got[:_SHOWN_NAME], known)
        return f"; {close}" if close.startswith("did you mean") else ""
    return "" if error["type"].startswith("string") else quotes_hint(got)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _keys_at(path: Sequence[str], kind: type[BaseModel]) -> list[str]:
    """Return the fields of the top level for an empty `path`, else those of all models: a path holds users' names."""
    schema = _schema(kind)
    at = schema["$defs"].values() if path else [schema]
    return list(dict.fromkeys(field for part in at for field in part.get("properties", ())))


@cache
def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    return kind.model_json_schema()
