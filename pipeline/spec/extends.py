"""`extends: FILE`: a spec on top of another file, so that several specs share their common part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Mapping: TypeAlias = dict[str, Any]

#: A longer chain of files is taken for a circle.
_DEEPEST = 8


def apply_extends(data: Mapping, path: Path, read: Callable[[Path], Mapping], depth: int = 0) -> Mapping:
    """Return `data` merged over the file that it extends, which may extend another file.

    Mappings are merged key by key; any other value replaces the one below.

    Args:
        data: the content of `path`.
        path: the file; `extends` is relative to its folder.
        read: reads a file.
        depth: number of files that led to this one.

    Raises:
        ValueError: if `extends` is not the name of a file, the file cannot be read, or files extend each other in a
            circle.
    """
    data = dict(data)
    below = data.pop("extends", None)
    if below is None:
        return data
    if not isinstance(below, str):
        raise ValueError(f"{path}: extends: must be the name of a file, got {below!r}")
    if depth == _DEEPEST:
        raise ValueError(f"{path}: extends: files extend each other in a circle, or through more than {_DEEPEST} files")
    file = path.parent / below
    try:
        content = read(file)
    except ValueError as error:
        raise ValueError(f"{path}: extends: {error}") from error
    return merge_over(apply_extends(content, file, read, depth + 1), data)


def merge_over(below: Mapping, above: Mapping) -> Mapping:
    """Merge mappings key by key; any other value of `above` replaces the one below."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge_over(merged[key], value) if both else value
    return merged
