"""Import the modules of users: plug-ins, and rewards that are Python functions."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks import moved_modules


def load_plugins(modules: Sequence[str]) -> None:
    """Import the user's modules, which register tasks and backbones. The driver and every worker call this.

    Args:
        modules: dotted names ("my_package.tasks") or paths to .py files; each runs once a process.

    Raises:
        ValueError: if a module is not found, or fails while it is imported (the cause is chained).

    Example:
        >>> load_plugins(["stripes.py"])
        Traceback (most recent call last):
        ValueError: plugins: cannot import 'stripes.py': FileNotFoundError: no such file: .../stripes.py
    """
    for name in modules:
        try:
            imported(name)
        except Exception as error:
            raise ValueError(f"plugins: cannot import {name!r}: {type(error).__name__}: {error}") from error


def imported(name: str) -> ModuleType:
    """Import a user's module by its dotted name or its path to a .py file; a file runs once a process.

    Raises:
        FileNotFoundError: if there is no file at the path.
        Exception: whatever the module raises.
    """
    moved_modules.install()
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    # The module's name holds the full path, so that files of one name in two folders are two modules.
    qualified = "lines_plugin_" + "".join(c if c.isalnum() else "_" for c in str(path))
    if qualified in sys.modules:
        return sys.modules[qualified]
    spec: Any = importlib.util.spec_from_file_location(qualified, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[qualified]
        raise
    return module
