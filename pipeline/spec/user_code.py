"""The code that a spec names: whoever got the spec from somebody else must be told of it before it runs."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pipeline.console import print_note
from pipeline.spec.generation import is_reward_source


def list_user_code(spec: BaseModel) -> list[str]:
    """Plug-ins, rewards that are Python functions, and models that bring code of their own, by field and name."""
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
        elif key == "trust_remote_code" and part is not False:
            yield f"{field}: what the model brings"
        else:
            yield from _code(part, field)


def announce_code(spec: BaseModel) -> None:
    """Say that a spec runs code, where it does; without this package's own and what it stands on."""
    if named := list_user_code(spec):
        print_note(f"this spec runs code with your rights: {'; '.join(named)}")
