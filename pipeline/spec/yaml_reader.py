"""Reads YAML safely: plain values only, no duplicate keys, no huge files, and 1e-3 is a number."""

import math
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from pipeline.spec.yaml_errors import explain

#: Limits of a file. Nested lists of aliases (*name) make a short file that expands without end, so each alias counts
#: as all the values it names. No spec is nested nearly as deep, and Python's own limit is far off.
_MOST_BYTES, _MOST_VALUES, _DEEPEST = 4 * 2**20, 100_000, 64
_TOO_DEEP = "lists or mappings are nested too deeply or contain themselves"
_STR, _INT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "merge"))
#: The tags of values that JSON has too, as journals hold specs.
_PLAIN = {_STR, _INT, *(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "float", "seq", "map"))}
#: Control characters but tab and line ends, and halves of surrogate pairs: no name, path or prompt holds them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
#: Digits of the largest float; longer whole numbers cannot be computed with.
_MOST_DIGITS = 308
#: Characters of a value that an error shows.
_SHOWN = 50


class _Loader(yaml.SafeLoader):
    """A loader that refuses duplicate keys: PyYAML keeps only the last one, and an arm would silently disappear."""

    # YAML 1.1 reads 2024-01-01 as a date, which no field takes: it stays text.
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN or tag == _MERGE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node within the limits, before the whole file is in memory."""
        self._values += 1
        self._depth += 1
        if self._values > _MOST_VALUES or self._depth > _DEEPEST:
            problem = _TOO_DEEP if self._depth > _DEEPEST else f"must hold at most {_MOST_VALUES:,} values"
            raise _refusal(problem, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a plain value.

        Raises:
            yaml.YAMLError: if it is of another kind, or is text or a number that nothing can use.
        """
        if node.tag not in _PLAIN:
            raise _refusal(f"unsupported tag {node.tag.replace('tag:yaml.org,2002:', '!!')}", node.start_mark)
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        if found := _CONTROL.search(node.value):
            raise _refusal(f"the control character {found.group()!r}: remove it", node.start_mark)
        kind, got = node.tag.rpartition(":")[2], repr(node.value[:_SHOWN])
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError) as error:  # !!int of a word, or of more digits than Python reads
            raise _refusal(f"must be of the type {kind}, got {got}", node.start_mark) from error
        if isinstance(value, float | int) and not _is_number(value):
            rule = f"must be a number of at most {_MOST_DIGITS} digits" if isinstance(value, int) else "must not be NaN"
            raise _refusal(f"{rule}, got {got}", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping whose keys are different texts.

        Raises:
            yaml.YAMLError: if a key is no text or there twice.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise _refusal("key that is a collection", key.start_mark)
            if key.tag not in (_STR, _MERGE):
                raise _refusal(f"key that is no text: {key.value or 'null'}", key.start_mark)
            if key.value in seen:
                raise _refusal(f"duplicate key {key.value!r}: keep one of the two", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1.0e-3 as a number but 1e-3 as text; users write both.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _refusal(problem: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _is_number(value: float) -> bool:
    """Whether a value is a number, infinity included, that a float can hold."""
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


#: Path of a value: keys of mappings and places in lists.
ValuePath: TypeAlias = tuple[str | int, ...]


def read_yaml(path: Path) -> Any:
    """Return the content of a file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not UTF-8, not YAML or larger than a spec may be; the message has the line and the column.
    """
    return _read(path)[0]


def read_yaml_lines(path: Path) -> tuple[Any, dict[ValuePath, int]]:
    """Return the content of a file, and the line of each of its values, from 1.

    Raises:
        OSError, ValueError: as `read_yaml`.
    """
    content, node = _read(path)
    return content, dict(_lines(node, ())) if node else {}


def _lines(node: yaml.Node, path: ValuePath) -> Iterator[tuple[ValuePath, int]]:
    if isinstance(node, yaml.MappingNode):
        parts = [(key.value, key, value) for key, value in node.value]
    else:
        parts = [(i, item, item) for i, item in enumerate(node.value if isinstance(node, yaml.SequenceNode) else ())]
    for key, marked, value in parts:
        yield (*path, key), marked.start_mark.line + 1
        yield from _lines(value, (*path, key))


def _read(path: Path) -> tuple[Any, yaml.Node | None]:
    try:
        loader = _Loader(_text(path))
        node = loader.get_single_node()
        if node is None:
            return None, None
        count, depth = _size(node, {})
        if count > _MOST_VALUES:
            raise ValueError(f"must hold at most {_MOST_VALUES:,} values, with aliases (*name) expanded")
        if depth > _DEEPEST:
            raise ValueError(f"not valid YAML: {_TOO_DEEP}")
        return loader.construct_document(node), node
    except UnicodeDecodeError as error:
        raise ValueError(f"must be text in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ValueError(explain(error)) from error
    except RecursionError as error:
        raise ValueError(f"not valid YAML: {_TOO_DEEP}") from error


def _text(path: Path) -> str:
    """Read a file, but no more of it than a spec may have: a device has no end.

    Raises:
        ValueError: if it is larger, not UTF-8, or holds control characters.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        size = max(path.stat().st_size, len(content)) / 2**20
        raise ValueError(f"must be a spec, at most {_MOST_BYTES >> 20} MiB, got {size:.1f} MiB")
    text = content.decode("utf-8-sig")
    if found := _CONTROL.search(text):
        lines = text[: found.start() + 1].split("\n")
        place = f"line {len(lines)}, column {len(lines[-1])}"
        raise ValueError(f"{place}: not valid YAML: the control character {found.group()!r}: remove it")
    return text


def _size(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the number of values in a node and the depth of their nesting, with aliases expanded.

    A node that contains itself raises RecursionError.
    """
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else ()
        inner = [_size(part, known) for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(count for count, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    return known[id(node)]
