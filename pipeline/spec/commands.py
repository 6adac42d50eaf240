"""Recognises the command that a spec is for by its fields, so that a spec given to another command is explained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.spec.command_names import Command
from pipeline.spec.validation import SpecError

#: Command -> fields that only its specs have, and that say what is made.
MARKS: dict[Command, frozenset[str]] = {
    "run": frozenset({"arms", "experts"}),
    "finetune": frozenset({"methods", "runs"}),
    "ppo": frozenset({"policies", "rewards", "sft"}),
}


def command_of(data: Mapping[str, Any]) -> Command:
    """Return the command that a spec is for: the one with most of its marks, or else `run`.

    Example:
        >>> command_of({"name": "models", "base": "embedded/base", "methods": {"full": {}}})
        'finetune'
    """
    return max(MARKS, key=lambda command: len(MARKS[command] & data.keys()))


def check_command(data: Mapping[str, Any], kind: type[BaseModel], path: Path) -> None:
    """Require that a spec of `kind` is not that of another command.

    Raises:
        SpecError: if it has marks of another command and none of its own.
    """
    expected = next(command for command, marks in MARKS.items() if marks <= kind.model_fields.keys())
    found = command_of(data)
    if found != expected and not MARKS[expected] & data.keys():
        fields = ", ".join(sorted(MARKS[found] & data.keys()))
        raise SpecError(
            f"{path}: is a spec of `lines {found}`, as it has {fields}: use lines {found} {path}, or give a spec of "
            f"`lines {expected}`, with {' and '.join(sorted(MARKS[expected]))}"
        )
