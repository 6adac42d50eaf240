"""Counts the instructions of our own code: unlike seconds, the count is the same on every machine and load."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pipeline

_ROOT = str(Path(pipeline.__file__).parents[1])
_OURS = tuple(f"{_ROOT}/{package}/" for package in ("pipeline", "search", "tasks"))


def operations(work: Callable[[], object]) -> int:
    """Count the bytecode instructions of `pipeline`, `search` and `tasks` that `work` executes."""
    count = 0

    def traced(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "call":
            if not frame.f_code.co_filename.startswith(_OURS):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
