"""Reads YAML safely: refuses duplicate keys and huge files, and reads 1e-3 as a number."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

#: Limits of a file. Nested lists of aliases (*name) make a short file that expands without end, so each alias counts
#: as all the values it names.
_MOST_BYTES, _MOST_VALUES = 4 * 2**20, 100_000


class _Loader(yaml.SafeLoader):
    """A loader that refuses duplicate keys: PyYAML keeps only the last one, and an arm would silently disappear."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue  # a list or mapping, which PyYAML refuses as a key
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1.0e-3 as a number but 1e-3 as text; users write both.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """Return the content of a file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not UTF-8, not YAML or larger than a spec may be.
    """
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ValueError(f"must be a spec, at most {_MOST_BYTES >> 20} MiB, got {size / 2**20:.1f} MiB")
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > _MOST_VALUES:
            raise ValueError(f"must hold at most {_MOST_VALUES:,} values, with aliases (*name) expanded")
        return loader.construct_document(node)
    except UnicodeDecodeError as error:
        raise ValueError(f"must be text in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from error
    except RecursionError as error:
        raise ValueError("not valid YAML: lists or mappings are nested too deeply or contain themselves") from error


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values in a node with aliases expanded; a node that contains itself raises RecursionError."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else ()
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in inner)
    return known[id(node)]
