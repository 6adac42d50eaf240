"""The reference of all fields of specs, written out from the JSON schemas, which are made from the models."""

from collections.abc import Iterator
from typing import Any

from pipeline.cli.schemas import schema_of
from pipeline.spec.command_names import Command

_SCALARS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_HUGE = 1e9


def fields_page(command: Command) -> str:
    """Return the page of a command's spec: a section for each model, a row for each field."""
    schema = schema_of(command)
    root = schema["else"]["$ref"].rpartition("/")[2]
    parts = {name: part for name, part in schema["$defs"].items() if not name.startswith("Open")}
    order = [root, *sorted(parts.keys() - {root})]
    intro = (
        f"Every field of the specs that `lines {command}` executes, from the models that validate them; `lines schema "
        f"{command}` prints the same for editors. With `extends` or `repeat` no field is required in the file itself.\n"
    )
    sections = [f"## {name}\n\n{parts[name]['description']}\n\n{_table(parts[name])}" for name in order]
    return "\n\n".join([f"# Fields: lines {command}", intro, *sections]) + "\n"


def _table(part: dict[str, Any]) -> str:
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in part["properties"].items():
        default = "required" if name in part.get("required", ()) else _default(field.get("default"))
        cells = [f"`{name}`", type_of(field), default, " ".join(field.get("description", "").split())]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def _default(value: Any) -> str:
    if value is None or value in ({}, [], ""):
        return "none"
    if isinstance(value, dict):
        return "its own defaults"
    return f"`{value}`" if not isinstance(value, bool) else f"`{str(value).lower()}`"


def type_of(schema: dict[str, Any]) -> str:
    """Return what a value may be, in words; models are links to their sections.

    Example:
        >>> number, grid = {"type": "integer", "minimum": 1}, {"$ref": "#/$defs/Grid"}
        >>> type_of({"type": "array", "items": {"anyOf": [number, grid]}})
        'list of (integer ≥ 1 or [Grid](#grid))'
    """
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value != "")
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_of(choice) for choice in choices if choice.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {_grouped(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return f"mapping to {_grouped(_values(schema))}"
    return " ".join([_SCALARS.get(schema.get("type", ""), "any value"), *_bounds(schema)])


def _values(schema: dict[str, Any]) -> dict[str, Any]:
    named = schema.get("patternProperties") or {"": schema.get("additionalProperties")}
    found = next(iter(named.values()))
    return found if isinstance(found, dict) else {}


def _grouped(schema: dict[str, Any]) -> str:
    text = type_of(schema)
    return f"({text})" if " or " in text and "true or" not in text else text


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    for key, sign in _BOUNDS.items():
        if key in schema and abs(schema[key]) < _HUGE:
            yield f"{sign} {schema[key]:g}"
