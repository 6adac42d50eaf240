"""Options of text tasks, checked."""

from collections.abc import Mapping
from typing import Any, TypeVar

from tasks.base import TaskRequest
from tasks.language.text.backbone import LanguageBackbone
from tasks.registry import check_options

_T = TypeVar("_T")
#: Samples a batch.
_CPU_BATCH, _ACCELERATOR_BATCH = 16, 32


class Options:
    """The options of a task's entry in the spec."""

    def __init__(self, request: TaskRequest, known: tuple[str, ...]) -> None:
        """Take a request.

        Raises:
            ValueError: if an option is unknown.
        """
        self.where = f"tasks.{request.name}.options"
        check_options(self.where, request.options, known)
        self._given: Mapping[str, Any] = request.options

    def get(self, name: str, kind: type[_T], default: _T) -> _T:
        """Return an option of a type.

        Raises:
            ValueError: if it has another type.
        """
        value = self._given.get(name, default)
        if name in self._given and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self.wrong(name, {str: "text", bool: "true or false", int: "a whole number"}.get(kind, "another"))
        return value  # type: ignore[no-any-return]

    def count(self, name: str, default: int | None) -> int | None:
        """Return a number of at least 1.

        Raises:
            ValueError: if it is another value.
        """
        value = self._given.get(name, default)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise self.wrong(name, "a whole number, at least 1")
        return value

    def fraction(self, name: str, default: float) -> float:
        """Return a number between 0 and 1.

        Raises:
            ValueError: if it is another value.
        """
        value = self._given.get(name, default)
        if not isinstance(value, float | int) or not 0 < value < 1:
            raise self.wrong(name, "in (0, 1)")
        return float(value)

    def batch_size(self, backbone: LanguageBackbone) -> int:
        """Return the samples a batch: fewer on a CPU, whose caches are small."""
        found = self.count("batch_size", _CPU_BATCH if backbone.device.type == "cpu" else _ACCELERATOR_BATCH)
        assert found is not None
        return found

    def raw(self, name: str) -> Any:
        """Return an option as it is; None if it is not given."""
        return self._given.get(name)

    def wrong(self, name: str, rule: str) -> ValueError:
        """Return an error about an option."""
        return ValueError(f"{self.where}.{name}: must be {rule}, got {self._given.get(name)!r}")
