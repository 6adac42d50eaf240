"""Registries of tasks and backbones. Imports neither torch nor open_clip."""

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from tasks.base import Backbone, Task

T = TypeVar("T")

#: `load(request, backbone, progress) -> Task`; `progress(done, total)` is called while images are decoded.
TaskFactory: TypeAlias = "Callable[..., Task]"
#: `build(model, state, device, dtype, options) -> Backbone`.
BackboneFactory: TypeAlias = "Callable[..., Backbone]"


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the near names, or else all known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    # Names that hold commas themselves, as those of arms may, would run together.
    shown = map(repr, names) if any("," in name for name in names) else names
    return f"known: {', '.join(shown) or 'none'}"


def check_options(where: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown option names.

    Raises:
        ValueError: if an option is not in `known`; near names are suggested.
    """
    names = set(known)
    for name in options:
        if name not in names:
            raise ValueError(f"{where}.{name}: unknown option; {near(name, names)}")


class Registry(Generic[T]):
    """A dictionary that suggests near names; an entry may be "module:attribute", imported at the first look-up.

    Example:
        >>> colours: Registry[str] = Registry("colour")
        >>> colours.register("red", "string:ascii_letters")
        >>> colours["ret"]
        Traceback (most recent call last):
        ValueError: unknown colour 'ret': did you mean 'red'?
    """

    def __init__(self, kind: str) -> None:
        """Make an empty registry; errors call its entries `kind` ("task")."""
        self.kind = kind
        self._entries: dict[str, T | str] = {}

    def register(self, name: str, entry: T | str) -> None:
        """Add `entry` under `name`. Adding the same entry again changes nothing.

        Entries are the same if their file and qualified name are: a module that is loaded twice, as by the driver and a
        worker of one process, defines its functions twice.

        Raises:
            ValueError: if another entry has this name.

        Example:
            >>> def load(request, backbone, progress):
            ...     return zero_shot(request, backbone, Stripes(), progress)
            >>> TASKS.register("docs-stripes", load)
            >>> "docs-stripes" in TASKS
            True
        """
        before = self._entries.get(name)
        if before is not None and _identity(before) != _identity(entry):
            raise ValueError(f"{self.kind} {name!r}: already registered by {_identity(before)}; choose another name")
        self._entries[name] = entry

    def __contains__(self, name: str) -> bool:
        """Return whether `name` is registered."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in sorted order."""
        return iter(sorted(self._entries))

    def __getitem__(self, name: str) -> T:
        """Look up `name`.

        Raises:
            ValueError: if the name is unknown; near names are suggested.
        """
        if name not in self._entries:
            raise ValueError(f"unknown {self.kind} {name!r}: {near(name, self._entries)}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, attribute = entry.split(":")
            entry = cast(T, getattr(importlib.import_module(module), attribute))
            self._entries[name] = entry
        return entry


def _identity(entry: object) -> str:
    if isinstance(entry, str):
        return entry
    code = getattr(entry, "__code__", None)
    where = code.co_filename if code else getattr(entry, "__module__", "")
    return f"{where}:{getattr(entry, '__qualname__', repr(entry))}"


TASKS: Registry[TaskFactory] = Registry("task")
BACKBONES: Registry[BackboneFactory] = Registry("backbone")
BACKBONES.register("open_clip", "tasks.vision.clip.backbone:build")
BACKBONES.register("open_clip_classifier", "tasks.vision.classifier:build")
BACKBONES.register("vision", "tasks.towers.backbone:build")
BACKBONES.register("causal", "tasks.language.causal:build")
BACKBONES.register("seq2seq", "tasks.language.seq2seq:build")
BACKBONES.register("encoder", "tasks.language.encoder:build")
#: Prefix of a task's source, before the first slash -> its loader, for any model family.
SOURCES: Registry[TaskFactory] = Registry("kind of source")
SOURCES.register("lm_eval", "tasks.language.lm_eval.loading:load")
SOURCES.register("text", "tasks.language.text.loading:load_published")
#: Model family -> the loader of its other sources, such as folders; families that are absent score images.
FAMILY_TASKS: Registry[TaskFactory] = Registry("family with tasks of its own")
FAMILY_TASKS.register("encoder", "tasks.language.sentences.loading:load")
FAMILY_TASKS.register("causal", "tasks.language.text.loading:load")
FAMILY_TASKS.register("seq2seq", "tasks.language.text.loading:load")
