"""Imports without Python's garbage collector."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Pause the collector while large libraries are imported within.

    torch, open_clip and plotly make half a million objects, which all stay, and the collector looks at them again and
    again: importing takes 2.8 s of a core with it, 2.3 s without. It leaves them alone until the process ends.

    Once torch is there, a run's model may be too, in a cycle that waits for the collector: that would never be freed,
    so nothing more is set apart.
    """
    if not gc.isenabled():
        yield
        return
    before_runs = "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if before_runs:
            gc.freeze()
            atexit.register(gc.unfreeze)  # else libraries warn at the end of what was not freed
        gc.enable()
