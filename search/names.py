"""Errors about unknown names, with suggestions."""

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Return the error for an unknown name; near names come first.

    Args:
        what: the field or the kind of thing, such as "sampler".
        name: the unknown name.
        known: all valid names.

    Example:
        >>> raise unknown_name("sampler", "tpee", ["grid", "tpe"])
        Traceback (most recent call last):
        ValueError: sampler: unknown name 'tpee': did you mean 'tpe'? known are grid, tpe
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return ValueError(f"{what}: unknown name {name!r}: {hint}known are {', '.join(names) or 'none'}")
