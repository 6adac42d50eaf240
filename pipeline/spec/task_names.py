"""Finds a misspelt name in `tasks` or `rewards`: the other fields seem wrong then, but theirs is the right name."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from tasks.embedded import task_names

_EMBEDDED = "embedded/"


def tasks_of_objectives(expressions: Iterable[str]) -> list[str]:
    """Return the names in task["name"] of some objectives."""
    return [name for text in expressions for name in re.findall(r"task\[\s*[\"'](.*?)[\"']\s*\]", text)]


def check_names(field: str, sources: Mapping[str, str], used: Mapping[str, Sequence[str]]) -> None:
    """Refuse an entry of `field` that nothing names and whose name is nearly that of a missing entry.

    The two names differ by a typing error in one of them. It is in `field` if several fields agree on the other name,
    if the entry's source has that name, or if no embedded task has the name in `field`.

    Args:
        field: "tasks" or "rewards".
        sources: name of an entry -> its source.
        used: name of an entry -> the fields that name it.

    Raises:
        ValueError: if there is one; the message suggests the name in the other fields.
    """
    spare = [name for name in sources if name not in used]
    for wanted in (name for name in used if name not in sources):
        for name in difflib.get_close_matches(wanted, spare, n=1):
            source = sources[name]
            last = re.split(r"[/:]", source)[-1]
            unknown = source.startswith(_EMBEDDED) and source.removeprefix(_EMBEDDED) not in task_names()
            if unknown or last == wanted or len(used[wanted]) > 1:
                places = ", ".join(used[wanted][:3])
                raise ValueError(f"{field}.{name}: no field names it; did you mean {wanted!r}, as in {places}?")
