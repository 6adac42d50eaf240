"""lm-eval's tasks by name.

Its own index reads 14,000 YAML files for half a minute. A task's name is on a line of its own in its file, so that one
search through the files' text, of a second, finds it.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_NAME = re.compile(rb"""(?m)^["']?(task|group)["']?:[ \t]*["']?([^\s"'#\[{][^\r\n"'#]*?)["']?[ \t]*(?:#.*)?\r?$""")
_TAG = re.compile(rb"(?m)^tag:[ \t]*(\S+)|^tag:[ \t]*\r?\n((?:[ \t]*-[ \t]*\S+[ \t]*\r?\n?)+)")
#: Names that an error shows.
_SHOWN = 3


@dataclass(frozen=True)
class Catalogue:
    """The YAML files of a folder.

    Attributes:
        tasks: name -> file.
        groups: name -> file of a list of tasks.
        tags: name -> tasks that share it.
    """

    tasks: dict[str, Path]
    groups: dict[str, Path]
    tags: dict[str, list[str]]

    @classmethod
    def read(cls, root: Path) -> "Catalogue":
        """Search the files below `root`; of two with one name the first is taken, as lm-eval does."""
        found = cls({}, {}, {})
        for path in sorted(root.rglob("*.yaml"), key=Path.as_posix):
            text = path.read_bytes()
            names = {kind: name.decode(errors="replace") for kind, name in _NAME.findall(text)}
            if b"group" in names:
                found.groups.setdefault(names[b"group"], path)
            elif b"task" in names:
                found.tasks.setdefault(names[b"task"], path)
                for tag in _tags(text):
                    found.tags.setdefault(tag, []).append(names[b"task"])
        return found

    def find(self, name: str) -> Path | None:
        """Return the file of a task; None if there is none.

        Raises:
            ValueError: if the name is a group or a tag; its tasks are named.
        """
        if name in self.groups:
            raise ValueError(_several(name, "group", list(_members(self.groups[name]))))
        if name in self.tags and name not in self.tasks:
            raise ValueError(_several(name, "tag", self.tags[name]))
        return self.tasks.get(name)


def find_task(name: str, folders: tuple[Path, ...]) -> Path:
    """Return the YAML file of a task, from the first of `folders` that has it.

    Raises:
        ValueError: if the name is unknown, a group or a tag.
    """
    known: list[str] = []
    for folder in folders:
        catalogue = _installed(folder) if folder == folders[-1] else Catalogue.read(folder)
        if path := catalogue.find(name):
            return path
        known += [*catalogue.tasks, *catalogue.groups]
    close = difflib.get_close_matches(name, known, n=_SHOWN)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`lm_eval ls tasks` lists all names"
    raise ValueError(f"unknown task of lm-eval {name!r}; {hint}")


@cache
def _installed(root: Path) -> Catalogue:
    """Search the installed package once a process; a user's folder may change in between."""
    return Catalogue.read(root)


def _tags(text: bytes) -> Iterator[str]:
    for one, several in _TAG.findall(text):
        names = re.findall(rb"[^\s\[\],\"'-][^\s\[\],\"']*", one or several)
        yield from (name.decode(errors="replace") for name in names)


class _Loader(yaml.SafeLoader):
    """Reads functions of lm-eval's files as text, without importing them."""


def _as_text(loader: yaml.SafeLoader, node: Any) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_constructor("!function", _as_text)


def _members(path: Path) -> Iterator[str]:
    listed = yaml.load(path.read_bytes(), Loader=_Loader).get("task")  # noqa: S506
    for member in listed if isinstance(listed, list) else []:
        name = member.get("task") or member.get("group") if isinstance(member, dict) else member
        yield from [name] if isinstance(name, str) else []


def _several(name: str, kind: str, members: list[str]) -> str:
    shown = ", ".join(sorted(members)[:_SHOWN]) + ", ..." * (len(members) > _SHOWN)
    return f"{name!r} is a {kind} of lm-eval, not one task: name each task that you want as one of its own ({shown})"
