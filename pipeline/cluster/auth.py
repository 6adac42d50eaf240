"""Ray's token, for clusters that ask for one; without importing Ray, which reads the setting when it is imported."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def has_token() -> bool:
    """Whether there is a token to show: in the environment, or in ~/.ray/auth_token."""
    return bool(os.environ.get(_TOKEN) or os.environ.get(_PATH)) or (Path.home() / ".ray" / "auth_token").exists()


def use_token(address: str | None) -> None:
    """Have Ray show the token at any `address`; by itself it does so for auto only."""
    if address is not None and has_token():
        os.environ.setdefault(_MODE, "token")


@contextmanager
def token_of_our_own(read_anew: Callable[[], None]) -> Iterator[None]:
    """Have the Ray that is started within ask for a token that this process and its children alone know.

    Other users of the machine reach loopback as we do, and who reaches Ray runs code as us. Ray would take, or make,
    the token in ~/.ray/auth_token, which any user may read where the home folder is open. A token or a mode that the
    environment sets is left as it is.

    Args:
        read_anew: has Ray, where it was imported before, read the environment again.
    """
    if any(os.environ.get(name) for name in (_MODE, _TOKEN, _PATH)):
        yield
        return
    os.environ[_MODE], os.environ[_TOKEN] = "token", secrets.token_hex(32)
    read_anew()
    try:
        yield
    finally:
        del os.environ[_MODE], os.environ[_TOKEN]
        read_anew()
