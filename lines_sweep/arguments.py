"""Errors of the interface name its arguments: code that serves the command line too names options."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: A command in backticks, or an option outside of one.
_OPTION = re.compile(r"`[^`]*`|--([a-z]+)\b")


@contextmanager
def named_arguments(names: Mapping[str, str]) -> Iterator[None]:
    """Rename options in the message of an error.

    Args:
        names: option, without its dashes -> argument; others stay, and those of commands in backticks.

    Example:
        >>> with named_arguments({"weight": "weights"}):
        ...     raise ValueError("--weight: must be a number; `lines merge --weight 1` ...")
        Traceback (most recent call last):
        ValueError: weights: must be a number; `lines merge --weight 1` ...
    """
    try:
        yield
    except (ValueError, ConnectionError) as error:
        if error.args and isinstance(text := error.args[0], str):
            error.args = (_OPTION.sub(lambda found: names.get(found[1], found[0]), text), *error.args[1:])
        raise
