"""Packages that only `lines ppo` needs, the extra `ppo`."""

from importlib.util import find_spec

from tasks.extras import install_hint

_PACKAGES = ("datasets", "trl")


def check_packages() -> None:
    """Check that the packages are installed, before they are imported.

    Raises:
        ValueError: if some are missing; it names them and the command that installs them.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ValueError(f"lines ppo: not installed: {', '.join(missing)}: {install_hint('ppo')}")
