"""Reads and validates specs; errors name the field, the rule and the value got."""

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.spec.extends import apply_extends
from pipeline.spec.paths import resolve_run_paths
from pipeline.spec.run import RunSpec
from pipeline.spec.yaml_reader import read_yaml
from tasks.registry import near

_M = TypeVar("_M", bound=BaseModel)
#: An error shows at most this many characters of a value.
_SHOWN = 500


class SpecError(ValueError):
    """The spec is invalid; the message has one line for each error."""


def load_spec(path: Path) -> RunSpec:
    """Read and validate a spec; resolve its relative paths against its folder.

    Raises:
        SpecError: if the file cannot be read, is not YAML or does not fit the schema; the message has the path of each
            wrong field and the value got.

    Example:
        >>> from pathlib import Path
        >>> load_spec(Path("nothing.yaml"))
        Traceback (most recent call last):
        pipeline.spec.load.SpecError: nothing.yaml: cannot be read: No such file or directory
    """
    return parse_spec(read_mapping(path, RunSpec), str(path), path.parent)


def read_mapping(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    """Read the YAML of a spec of `kind` and of the files that it extends, without validating it.

    Raises:
        SpecError: if a file cannot be read, is not YAML or is not a mapping.
    """
    try:
        return apply_extends(_read(path, kind), path, lambda file: _read(file, kind))
    except ValueError as error:
        raise SpecError(str(error)) from error


def _read(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    try:
        data = read_yaml(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        *first, last = (name for name, field in kind.model_fields.items() if field.is_required())
        raise SpecError(f"{path}: must be a mapping with {', '.join(first)} and {last}")
    return data


def parse_spec(data: dict[str, Any], source: str = "spec", folder: Path | None = None) -> RunSpec:
    """Validate a spec given as a mapping; `source` is its name in errors.

    Raises:
        SpecError: if the mapping does not fit the schema.

    Example:
        >>> spec = parse_spec({
        ...     "name": "quickstart",
        ...     "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        ...     "base": "embedded/base",
        ...     "experts": {"mnist": "embedded/mnist"},
        ...     "tasks": ["mnist"],
        ...     "arms": {"task arithmetic": {"merge": "sum", "scaling": {"alpha": {"grid": [0.5, 1.0]}}}},
        ... })
        >>> spec.arms["task arithmetic"].scaling.alpha.grid
        (0.5, 1.0)
        >>> parse_spec({**spec.model_dump(), "seeds": 1})
        Traceback (most recent call last):
        pipeline.spec.load.SpecError: spec: seeds: unknown key; did you mean 'seed'?
    """
    spec = validate(RunSpec, data, source)
    return spec if folder is None else resolve_run_paths(spec, folder)


def validate(kind: type[_M], data: dict[str, Any], source: str) -> _M:
    """Build a spec of `kind` from a mapping; `source` is its name in errors.

    Raises:
        SpecError: if the mapping does not fit the schema.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(e, kind) for e in error.errors())
        raise SpecError("\n".join(f"{source}: {line}" for line in lines)) from None


def _explain(error: Any, kind: type[BaseModel]) -> str:
    """Write one error of pydantic as "field path: rule, got value"."""
    # Leave out tags of a union's members ("<grid>") and pydantic's "function-before[...]": they are not fields.
    path = [str(p) for p in error["loc"] if not re.match(r"<|function-|\[key\]", str(p))]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {near(path[-1], _keys_at(path[:-1], kind))}"
    if error["type"] == "missing":
        return f"{where}: is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not where:
        return message
    got = error.get("input")
    shown = f", got {_short(got)}" if isinstance(got, str | int | float | list) and "got" not in message else ""
    return f"{where}: {message[0].lower() + message[1:]}{shown}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _keys_at(path: list[str], kind: type[BaseModel]) -> list[str]:
    """Return the fields of the top level for an empty `path`, else those of all models: a path holds users' names."""
    schema = kind.model_json_schema()
    at = schema["$defs"].values() if path else [schema]
    return list(dict.fromkeys(field for part in at for field in part.get("properties", ())))
