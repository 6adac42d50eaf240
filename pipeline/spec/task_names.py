"""Finds a misspelt name in `tasks`: the rest of the spec then seems wrong, but the right name is the one it uses."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.spec.sources import TaskSpec
from tasks.embedded import pack_names

_EMBEDDED = "embedded/"


def tasks_of_objectives(expressions: Iterable[str]) -> list[str]:
    """Return the names in task["name"] of some objectives."""
    return [name for text in expressions for name in re.findall(r"task\[\s*[\"'](.*?)[\"']\s*\]", text)]


def check_task_names(tasks: Mapping[str, TaskSpec], used: Mapping[str, Sequence[str]]) -> None:
    """Refuse a task that nothing uses and whose name is nearly the name of a missing task.

    A task and what names it differ by a typing error in one of them. It is in `tasks` if several fields agree on the
    other name, if the task's source has that name, or if no embedded task has the name in `tasks`.

    Args:
        tasks: the tasks of the spec.
        used: name of a task -> the fields that use it.

    Raises:
        ValueError: if there is one; the message suggests the name that the other fields use.
    """
    spare = [name for name in tasks if name not in used]
    for wanted in (name for name in used if name not in tasks):
        for name in difflib.get_close_matches(wanted, spare, n=1):
            source = tasks[name].source
            last = re.split(r"[/:]", source)[-1]
            unknown = source.startswith(_EMBEDDED) and source.removeprefix(_EMBEDDED) not in pack_names()
            if unknown or last == wanted or len(used[wanted]) > 1:
                places = ", ".join(used[wanted][:3])
                raise ValueError(f"tasks.{name}: nothing uses this name; did you mean {wanted!r}, as in {places}?")
