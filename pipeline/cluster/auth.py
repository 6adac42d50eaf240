"""Ray's authentication token. Does not import Ray, which reads the token's mode at import."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def has_token() -> bool:
    """Whether the environment or ~/.ray/auth_token has a token."""
    return bool(os.environ.get(_TOKEN) or os.environ.get(_PATH)) or (Path.home() / ".ray" / "auth_token").exists()


def use_token(address: str | None) -> None:
    """Make Ray send the token to any `address`; by default it does so for "auto" only."""
    if address is not None and has_token():
        os.environ.setdefault(_MODE, "token")


@contextmanager
def session_token(reload: Callable[[], None]) -> Iterator[None]:
    """Make the Ray that is started within require a new token, known only to this process and its children.

    Other users of the machine can reach loopback, and a process that reaches Ray can run code as its owner. Ray itself
    would use or create ~/.ray/auth_token, which other users can read if the home folder is open to them. A token or
    mode in the environment is kept.

    Args:
        reload: makes Ray, if it has been imported, read the environment again.
    """
    if any(os.environ.get(name) for name in (_MODE, _TOKEN, _PATH)):
        yield
        return
    os.environ[_MODE], os.environ[_TOKEN] = "token", secrets.token_hex(32)
    reload()
    try:
        yield
    finally:
        del os.environ[_MODE], os.environ[_TOKEN]
        reload()
