"""Errors that suggest near names."""

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not among the known ones, nearest names first where any is near.

    Args:
        what: the field or kind of thing, such as "sampler".
        name: what was given.
        known: every name that would have been right.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return ValueError(f"{what}: unknown name {name!r}: {hint}known are {', '.join(names) or 'none'}")
