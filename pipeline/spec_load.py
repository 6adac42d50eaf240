"""From a YAML file to a checked `RunSpec`, with errors that name the field, the rule and the value got."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.merging.parameters import near
from pipeline.spec import RunSpec, TaskSpec, models
from tasks.embedded import pack_names


class SpecError(ValueError):
    """The spec is not valid; the message has one line for each error."""


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice: PyYAML would keep the last one without a word, and an arm would be gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 as text, 1.0e-3 as a number; people write both.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_spec(path: Path) -> RunSpec:
    """Read and check a spec; relative paths in it are resolved against its folder.

    Raises:
        SpecError: not there, not YAML, or against the schema: each error with the field's path and the value got.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: must be text in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path}: must be a mapping with name, backbone, base, experts, tasks and arms")
    return parse_spec(data, str(path), path.parent)


def parse_spec(data: dict[str, Any], source: str = "spec", folder: Path | None = None) -> RunSpec:
    """Check a spec given as a mapping.

    Raises:
        SpecError: as `load_spec`.
    """
    try:
        spec = RunSpec.model_validate(data)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(e) for e in error.errors())
        raise SpecError("\n".join(f"{source}: {line}" for line in lines)) from None
    return spec if folder is None else _resolve(spec, folder)


def _explain(error: Any) -> str:
    """One error of pydantic as: field path: rule, got value."""
    # The tag of a union's member ("<grid>") is not part of the field's path, nor are pydantic's "function-before[...]".
    path = [str(p) for p in error["loc"] if not re.match(r"<|function-|\[key\]", str(p))]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{near(path[-1], _keys_at(path[:-1]))}"
    if error["type"] == "missing":
        return f"{where}: is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not where:
        return message
    got = error.get("input")
    shown = f", got {got!r}" if isinstance(got, str | int | float | list) and "got" not in message else ""
    return f"{where}: {message[0].lower() + message[1:]}{shown}"


def _keys_at(path: list[str]) -> list[str]:
    """Every field name that may stand at `path`, or of the whole schema where the path goes through names of users."""
    at = [RunSpec] if not path else [m for m in models() if m is not RunSpec]
    return [field for model in at for field in model.model_fields]


def _resolve(spec: RunSpec, folder: Path) -> RunSpec:
    """Make relative paths that exist beside the spec absolute, so that workers elsewhere find them."""

    def fix(source: str) -> str:
        if source.startswith("local-dir:"):
            return f"local-dir:{(folder / source.removeprefix('local-dir:')).resolve()}"
        if source.startswith(("embedded/", "hf:", "pretrained:")) or Path(source).is_absolute():
            return source
        return str((folder / source).resolve()) if (folder / source).exists() else source

    def fix_task(source: str) -> str:
        """A bare name was taken for an embedded task; where there is none, it is the folder beside the spec."""
        name = source.removeprefix("embedded/")
        bare = name != source and name not in pack_names() and (folder / name).is_dir()
        return fix(name if bare else source)

    def fix_tasks(tasks: dict[str, TaskSpec]) -> dict[str, TaskSpec]:
        return {k: t.model_copy(update={"source": fix_task(t.source)}) for k, t in tasks.items()}

    return spec.model_copy(
        update={
            "base": fix(spec.base),
            "backbone": spec.backbone.model_copy(update={"model": fix(spec.backbone.model)}),
            "experts": {k: fix(v) for k, v in spec.experts.items()},
            "tasks": fix_tasks(spec.tasks),
            "ood": fix_tasks(spec.ood),
            "plugins": tuple(fix(p) for p in spec.plugins),
        }
    )
