"""JSON schemas of specs as users write them, for editors: short forms, `extends`, `repeat`, names to choose from."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, TypeAlias

from pydantic import BaseModel

from pipeline.merging.methods import METHODS
from pipeline.merging.scaling import SCALINGS
from pipeline.merging.steps import STEPS
from pipeline.spec.command_names import Command
from search.samplers import SAMPLERS
from tasks.registry import BACKBONES

Schema: TypeAlias = dict[str, Any]
_MODELS: dict[Command, str] = {
    "run": "pipeline.spec.run:RunSpec",
    "finetune": "pipeline.train.finetune.spec:FinetuneSpec",
    "ppo": "pipeline.train.ppo.spec:PpoSpec",
}
#: A text that `repeat` replaces.
_PLACE = {"type": "string", "pattern": r"\{\w+(\.\w+)?\}"}
_LOOSE = "Open"
_EXTENDS: Schema = {"type": "string", "description": "A file, relative to this one, on top of which this spec is put."}
_REPEAT: Schema = {
    "type": "object",
    "description": "Variables over whose values entries with {NAME}, or {NAME.FIELD}, are repeated.",
    "additionalProperties": {
        "oneOf": [
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            {"type": "object", "additionalProperties": {"type": ["object", "null"]}, "minProperties": 1},
        ]
    },
}


def schema_of(kind: Command) -> Schema:
    """Return the schema of a spec.

    A spec with `extends` may lack fields at any depth, and one with `repeat` may have texts such as {set.experts} in
    place of values, so both are checked by a copy of the schema without required fields.

    Args:
        kind: the command that executes it.
    """
    module, _, name = _MODELS[kind].partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    schema = model.model_json_schema()
    parts = {name: schema} | schema.pop("$defs")
    for part, field, names, closed in _choices():
        if part in parts and field in parts[part]["properties"]:
            _suggest(parts[part]["properties"][field], names, closed)
    if "Arm" in parts:
        _suggest(parts["Arm"]["properties"]["merge"]["anyOf"][0], METHODS, closed=True)
        _suggest(parts["Merge"]["properties"]["then"]["items"]["anyOf"][0], STEPS, closed=True)
    loose = {f"{_LOOSE}{part}": _loosened(content) for part, content in parts.items()}
    loose[f"{_LOOSE}{name}"]["properties"] |= {"extends": _EXTENDS, "repeat": _REPEAT}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"lines-sweep/{kind}.json",
        "title": f"Spec of lines {kind}",
        "if": {"anyOf": [{"required": ["extends"]}, {"required": ["repeat"]}]},
        "then": {"$ref": f"#/$defs/{_LOOSE}{name}"},
        "else": {"$ref": f"#/$defs/{name}"},
        "$defs": parts | loose,
    }


def _choices() -> list[tuple[str, str, Iterable[str], bool]]:
    """Return model, field, the names that it takes, and whether there are no others (plug-ins bring families)."""
    return [
        ("ScalingSpec", "function", SCALINGS, True),
        ("Merge", "method", METHODS, True),
        ("StepSpec", "step", STEPS, True),
        ("Search", "sampler", [*SAMPLERS, "greedy"], True),
        ("BackboneSpec", "family", BACKBONES, False),
    ]


def _suggest(field: Schema, names: Iterable[str], closed: bool) -> None:
    del field["type"]
    choice = {"enum": [*names, *([""] if field.get("default") == "" else [])]}
    field |= choice if closed else {"anyOf": [choice, {"type": "string"}]}


def _loosened(node: Any) -> Any:
    """Return a schema without required fields, whose values may be places that `repeat` fills in."""
    if isinstance(node, list):
        return [_loosened(part) for part in node]
    if not isinstance(node, dict):
        return node
    found: Schema = {}
    for key, value in node.items():
        if key == "properties":
            found[key] = {name: _or_place(_loosened(part)) for name, part in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            found[key] = _or_place(_loosened(value))
        elif key == "$ref":
            found[key] = value.replace("#/$defs/", f"#/$defs/{_LOOSE}")
        elif key == "patternProperties":
            found["additionalProperties"] = _or_place(_loosened(next(iter(value.values()))))
        elif key not in ("required", "propertyNames", "minItems", "maxItems", "minProperties"):
            found[key] = _loosened(value) if key in ("anyOf", "oneOf", "allOf", "prefixItems") else value
    if "oneOf" in found:  # a place may stand for every form
        found["anyOf"] = found.pop("oneOf")
    return found


def _or_place(schema: Schema) -> Schema:
    outer: Schema = {key: schema.pop(key) for key in ("description", "default", "title") if key in schema}
    return {**outer, "anyOf": [schema, _PLACE]} if schema else outer
