"""A command of `lines` in a forked process, which starts at once as everything is imported, and is sent signals."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.cli.main import app
from pipeline.signals import STOPPED

_LATE = 60.0


def _work(words: list[str], log: Path) -> None:
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    with log.open("w", buffering=1) as file:
        sys.stdout = sys.stderr = file
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        app(words)


def stopped(command: str, spec: Path, out: Path, signals: list[int], ready: Callable[[str], bool]) -> str:
    """Start a command, send it signals once it is `ready` by its output so far, and return its output.

    It ends with status 130, says what to do, and shows no traceback.
    """
    log = out.with_suffix(".log")
    log.unlink(missing_ok=True)
    log.touch()
    words = [command, str(spec), "--out", str(out)]
    process: Any = multiprocessing.get_context("fork").Process(target=_work, args=(words, log))
    process.start()
    end = time.monotonic() + _LATE
    while not ready(log.read_text()) and process.is_alive() and time.monotonic() < end:
        time.sleep(0.002)
    for number in signals:
        if process.is_alive():
            os.kill(process.pid, number)
        time.sleep(0.05)
    process.join(_LATE)
    if process.exitcode is None:
        process.kill()
    output = log.read_text()
    assert process.exitcode == STOPPED, (process.exitcode, output)
    assert "stopped: " in output and "rerun the same command" in output and "Traceback" not in output, output
    return output
