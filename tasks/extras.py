"""What to install for an optional feature."""

import re
import shlex
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def install_hint(extra: str, checkout: Path = _ROOT) -> str:
    """Return the command that installs an extra of this project: by its checkout, or by the names of its packages.

    Args:
        extra: one of the `optional-dependencies` in pyproject.toml.
        checkout: the folder with pyproject.toml; without this file, the project was installed from a wheel.

    Example:
        >>> install_hint("s3", Path("/nowhere"))
        'pip install s3fs'
    """
    if (checkout / "pyproject.toml").is_file():
        place = "." if checkout == Path.cwd() else checkout
        return f"pip install -e '{place}[{extra}]'"
    return f"pip install {shlex.join(_packages(extra))}"


def _packages(extra: str) -> list[str]:
    """Return the packages of an extra, from the metadata of the installed project."""
    try:
        found = requires("lines-sweep") or []
    except PackageNotFoundError:
        found = []
    named = [r.split(";")[0].strip() for r in found if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", r)]
    return named or [f"lines-sweep[{extra}]"]
