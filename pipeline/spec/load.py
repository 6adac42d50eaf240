"""Reads and validates specs; errors name the field, the rule and the value got."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.spec.commands import check_command
from pipeline.spec.extends import apply_extends
from pipeline.spec.paths import resolve_run_paths
from pipeline.spec.repeat import repeated
from pipeline.spec.run import RunSpec
from pipeline.spec.validation import SpecError, validate
from pipeline.spec.yaml_reader import read_yaml

__all__ = ["SpecError", "load_spec", "parse_spec", "read_file", "read_mapping"]


def load_spec(path: Path) -> RunSpec:
    """Read and validate a spec; resolve its relative paths against its folder.

    Raises:
        SpecError: if the file cannot be read, is not YAML or does not fit the schema; the message has the path of each
            wrong field and the value got.

    Example:
        >>> from pathlib import Path
        >>> load_spec(Path("nothing.yaml"))
        Traceback (most recent call last):
        pipeline.spec.validation.SpecError: nothing.yaml: cannot be read: No such file or directory
    """
    return parse_spec(read_mapping(path, RunSpec), str(path), path.parent)


def read_mapping(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    """Read the YAML of a spec of `kind` and of the files that it extends, without validating it.

    Raises:
        SpecError: if a file cannot be read, is not YAML, is not a mapping or is the spec of another command.
    """
    data = read_file(path, kind)
    check_command(data, kind, path)
    return data


def read_file(path: Path, kind: type[BaseModel] = RunSpec) -> dict[str, Any]:
    """Read the YAML of any spec and of the files that it extends; errors name the required fields of `kind`.

    Raises:
        SpecError: if a file cannot be read, is not YAML or is not a mapping.
    """
    try:
        return repeated(apply_extends(_read(path, kind), path, lambda file: _read(file, kind)), str(path))
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
        pipeline.spec.validation.SpecError: spec: seeds: unknown key; did you mean 'seed'?
    """
    try:
        data = repeated(data, source)
    except ValueError as error:
        raise SpecError(str(error)) from error
    spec = validate(RunSpec, data, source)
    return spec if folder is None else resolve_run_paths(spec, folder)
