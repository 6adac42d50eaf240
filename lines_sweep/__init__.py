"""LiNeS Sweep in Python: `import lines_sweep as lines`.

The command `lines` calls the same functions. Nothing heavy is imported before it is used.

Example:
    >>> import lines_sweep as lines
    >>> run = lines.run("examples/demo.yaml", out="runs/demo")  # doctest: +SKIP
    >>> print(run.verdict)  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.versions import installed_version

if TYPE_CHECKING:
    from lines_sweep.merging import edit, merge
    from lines_sweep.opened import Run, open_run
    from lines_sweep.running import run

__all__ = ["Run", "edit", "merge", "open_run", "run"]

__version__ = installed_version("lines-sweep")

_HOMES = {
    "Run": "lines_sweep.opened",
    "edit": "lines_sweep.merging",
    "merge": "lines_sweep.merging",
    "open_run": "lines_sweep.opened",
    "run": "lines_sweep.running",
}


def __getattr__(name: str) -> object:
    """Import a name of the interface when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the interface."""
    return __all__
