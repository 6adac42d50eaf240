"""Wall and CPU seconds and peak memory of a command with all processes that it starts, Ray's too."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY = 0.2


@dataclass(frozen=True)
class Timing:
    """What a command took.

    Attributes:
        wall, cpu: seconds; of processes that the command does not wait for, such as Ray's, as sampled 5 times a second.
        peak: the largest sum of resident memory over the processes, in MB.
        output: its standard output.
    """

    wall: float
    cpu: float
    peak: float
    output: str


def timed(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Timing:
    """Run a command to its end.

    Raises:
        RuntimeError: if it fails, with the end of its log.
    """
    seconds: dict[tuple[int, float], float] = {}
    peak, started = 0.0, time.perf_counter()
    with log.open("w") as errors, log.with_suffix(".out").open("w+") as output:
        process = subprocess.Popen(words, stdout=output, stderr=errors, env={**os.environ, **environment})
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, _sample(process.pid, seconds))
            time.sleep(_EVERY)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words[:4])} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return Timing(wall, max(used.ru_utime + used.ru_stime, sum(seconds.values())), peak, text)


def _sample(pid: int, seconds: dict[tuple[int, float], float]) -> float:
    """Note the CPU seconds of each process so far; return the resident memory of all, in MB."""
    resident = 0.0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return resident
    for process in processes:
        try:
            times = process.cpu_times()
            seconds[process.pid, process.create_time()] = times.user + times.system
            resident += process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return resident
