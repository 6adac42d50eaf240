"""Finds the code that a spec names, so that a user who received the spec sees it before it runs."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pipeline.console import print_note
from pipeline.spec.generation import is_reward_source

#: Option -> the code that it names.
_CODE = {
    "trust_remote_code": "code of the model's repository",
    # Templates and functions in YAML files of lm-eval can run anything.
    "include_path": "{}",
    "confirm_run_unsafe_code": "code that the model writes",
}


def list_user_code(spec: BaseModel) -> list[str]:
    """List the code of a spec as "field: name": plug-ins, rewards that are functions, tasks and models with code."""
    return list(dict.fromkeys(_code(spec.model_dump(mode="json"), "")))


def _code(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _code(part, where)
    if not isinstance(value, dict):
        return
    for key, part in value.items():
        field = f"{where}.{key}" if where else str(key)
        if key == "plugins":
            yield from (f"{field}: {name}" for name in part)
        elif key == "source" and isinstance(part, str) and is_reward_source(part) and ":" in part:
            yield f"{field}: {part}"
        elif key in _CODE and part not in (False, None):
            yield f"{field}: {_CODE[key].format(part)}"
        else:
            yield from _code(part, field)


def announce_code(spec: BaseModel) -> None:
    """Print a note if the spec runs code of the user's or of a model's repository."""
    if named := list_user_code(spec):
        print_note(f"this spec runs code with your rights: {'; '.join(named)}")
