"""Reads and validates specs; errors name the field, the rule and the value got."""

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.spec.extends import apply_extends
from pipeline.spec.generation import Prompts, RewardSpec, is_reward_source
from pipeline.spec.run import RunSpec
from pipeline.spec.sources import ModelSpec, TaskSpec
from pipeline.spec.yaml_reader import read_yaml
from tasks.embedded import pack_names
from tasks.files.sources import Source
from tasks.registry import near

_M = TypeVar("_M", bound=BaseModel)
_R = TypeVar("_R", TaskSpec, RewardSpec)
#: Options of rewards that hold paths.
_PATHS = ("model", "corpus")
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
    return spec if folder is None else _resolve(spec, folder)


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


def _resolve(spec: RunSpec, folder: Path) -> RunSpec:
    experts = {name: resolve_path(source, folder) for name, source in spec.experts.items()}
    changes = {**resolve_model_paths(spec, folder), "experts": experts, "ood": _fixed_tasks(spec.ood, folder)}
    if spec.generation is not None:
        changes["generation"] = spec.generation.model_copy(
            update={"prompts": resolve_prompts(spec.generation.prompts, folder)}
        )
    return spec.model_copy(update=changes)


def resolve_model_paths(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """Return a model's fields with paths that exist in `folder` made absolute, so that remote workers find them."""
    return {
        "base": resolve_path(spec.base, folder),
        "backbone": spec.backbone.model_copy(update={"model": resolve_path(spec.backbone.model, folder)}),
        "tasks": _fixed_tasks(spec.tasks, folder),
        # Other names are modules, even if the spec's folder has a file or folder of that name.
        "plugins": tuple(resolve_path(p, folder) if p.endswith(".py") else p for p in spec.plugins),
    }


def resolve_path(source: str, folder: Path) -> str:
    """Return `source` as an absolute path if it exists in `folder`, else unchanged."""
    if source.startswith("local-dir:"):
        return f"local-dir:{resolve_path(source.removeprefix('local-dir:'), folder)}"
    if Source.parse(source).kind != "path" or Path(source).is_absolute():
        return source
    return str((folder / source).resolve()) if (folder / source).exists() else source


def resolve_prompts(prompts: Prompts, folder: Path) -> Prompts:
    """Return the prompts with their source resolved against `folder`."""
    return prompts.model_copy(update={"source": resolve_path(prompts.source, folder)})


def _fixed_tasks(tasks: dict[str, TaskSpec], folder: Path) -> dict[str, TaskSpec]:
    return {
        name: resolve_reward(task, folder)
        if is_reward_source(task.source)
        else task.model_copy(update={"source": _fixed_task(task.source, folder)})
        for name, task in tasks.items()
    }


def resolve_reward(reward: _R, folder: Path) -> _R:
    """Return the reward with its file, and the paths among its options, resolved against `folder`."""
    options = {
        k: resolve_path(v, folder) if k in _PATHS and isinstance(v, str) else v for k, v in reward.options.items()
    }
    file, colon, name = reward.source.rpartition(":")
    source = f"{resolve_path(file, folder)}:{name}" if colon else reward.source
    return reward.model_copy(update={"source": source, "options": options})


def _fixed_task(source: str, folder: Path) -> str:
    """Resolve a task's source; a bare name that is no embedded task may be a folder next to the spec."""
    name = source.removeprefix("embedded/")
    bare = name != source and name not in pack_names() and (folder / name).is_dir()
    return resolve_path(name if bare else source, folder)
