"""`extends: FILE` in a spec: what several specs have in common is written once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Mapping: TypeAlias = dict[str, Any]

#: Files that build on one another: more is a circle.
_DEEPEST = 8


def apply_extends(data: Mapping, path: Path, read: Callable[[Path], Mapping], depth: int = 0) -> Mapping:
    """`data` on top of the file that it extends, which may extend another one in its turn.

    Mappings are laid over each other key by key; anything else replaces what was there.

    Args:
        data: the content of `path`.
        path: the file; `extends` is relative to its folder.
        read: reads another file.
        depth: how many files led here.

    Raises:
        ValueError: `extends` is not a file's name, that file cannot be read, or files extend each other in a circle.
    """
    data = dict(data)
    below = data.pop("extends", None)
    if below is None:
        return data
    if not isinstance(below, str):
        raise ValueError(f"{path}: extends: must be the name of a file, got {below!r}")
    if depth == _DEEPEST:
        raise ValueError(f"{path}: extends: files extend each other in a circle, or more than {_DEEPEST} deep")
    file = path.parent / below
    try:
        content = read(file)
    except ValueError as error:
        raise ValueError(f"{path}: extends: {error}") from error
    return _over(apply_extends(content, file, read, depth + 1), data)


def _over(below: Mapping, above: Mapping) -> Mapping:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged
