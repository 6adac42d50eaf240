"""Runs cases in forked children with limits of time and memory: a crash or a hang is one finding."""

import gc
import json
import math
import os
import resource
import selectors
import shutil
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

#: Runs the case of a seed in an empty folder and returns a verdict; raises `Fault`, or anything else, for a finding.
Check: TypeAlias = Callable[[int, Path], str]
#: A report that goes through a pipe at once.
_MOST_TEXT = 20_000


class Fault(Exception):  # noqa: N818 - the finding of a case, not an error of this program
    """What a case found; `kind` is one word, the rest explains it."""

    def __init__(self, kind: str, detail: str) -> None:
        """Keep both."""
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one case.

    Attributes:
        cpu: seconds of processor time.
        wall: seconds, for a case that waits for ever; large, as the machine may be busy.
        resident: MiB of memory in use above what the child starts with.
        reserved: MiB of address space above it; threads reserve much that they never use.
    """

    cpu: int = 10
    wall: float = 120
    resident: int = 512
    reserved: int = 6144


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one case.

    Attributes:
        seed: of the case.
        verdict: one word, such as "accepted" or "refused"; "" for a finding.
        kind: of the finding, in one word; "" without one.
        detail: the cause, in one line.
        place: file and function of the program in which it arose.
        text: the traceback.
    """

    seed: int
    verdict: str = ""
    kind: str = ""
    detail: str = ""
    place: str = ""
    text: str = ""


@dataclass(slots=True)
class _Child:
    pid: int
    pipe: int
    seeds: Sequence[int]
    deadline: float
    done: int = 0
    unread: bytes = b""


def run_cases(
    check: Check, seeds: Sequence[int], folder: Path, limits: Limits, jobs: int = 1, batch: int = 1
) -> Iterator[Result]:
    """Yield the result of each seed, in the order in which they end.

    Args:
        check: the cases.
        seeds: of the cases to run.
        folder: for their files, which are removed.
        limits: of each case.
        jobs: children at a time.
        batch: cases that one child runs in turn: a fork takes 40 ms. A child that dies leaves the rest to another one.
    """
    left = deque(seeds[i : i + batch] for i in range(0, len(seeds), batch))
    running = dict[int, _Child]()
    gc.collect()
    gc.freeze()  # else each child copies what its first collection touches
    with selectors.DefaultSelector() as selector:
        while left or running:
            while left and len(running) < jobs:
                child = _start(check, left.popleft(), folder, limits)
                running[child.pipe] = child
                selector.register(child.pipe, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(timeout=1.0)}
            for child in list(running.values()):
                if child.pipe in ready and (part := os.read(child.pipe, 65536)):
                    yield from _reported(child, part, limits)
                elif child.pipe in ready or time.monotonic() > child.deadline:
                    selector.unregister(child.pipe)
                    del running[child.pipe]
                    yield from _ended(child, late=child.pipe not in ready)
                    if rest := child.seeds[child.done :]:
                        left.appendleft(rest)
    gc.unfreeze()
    shutil.rmtree(folder, ignore_errors=True)


def _reported(child: _Child, part: bytes, limits: Limits) -> Iterator[Result]:
    *lines, child.unread = (child.unread + part).split(b"\n")
    for line in lines:
        child.done += 1
        child.deadline = time.monotonic() + limits.wall
        yield Result(**json.loads(line))


def _ended(child: _Child, late: bool) -> Iterator[Result]:
    """Wait for the end of a child, killing it if it is late; yield the finding of a case that has not reported."""
    if late:
        os.kill(child.pid, signal.SIGKILL)
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    if child.done == len(child.seeds):
        return
    seed, child.done = child.seeds[child.done], child.done + 1
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if late or number == signal.SIGXCPU:
        yield Result(seed, kind="time", detail="did not end in time")
    else:
        yield Result(seed, kind="crash", detail=f"ended by {signal.Signals(number).name}" if number else "just ended")


def run_here(check: Check, seed: int, folder: Path) -> Result:
    """Run one case in this process, without limits, and keep its folder."""
    folder.mkdir(parents=True)
    return _judge(check, seed, folder)


def _start(check: Check, seeds: Sequence[int], folder: Path, limits: Limits) -> _Child:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            _silence()
            for seed in seeds:
                own = folder / f"case-{seed}"
                own.mkdir(parents=True)
                _write(writer, _limited(check, seed, own, limits))
                shutil.rmtree(own, ignore_errors=True)
        finally:
            os._exit(0)
    os.close(writer)
    return _Child(pid, reader, seeds, time.monotonic() + limits.wall)


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _limited(check: Check, seed: int, folder: Path, limits: Limits) -> Result:
    pages = [int(n) for n in Path("/proc/self/statm").read_text().split()[:2]]
    reserved, resident = (n * resource.getpagesize() for n in pages)
    _limit(resource.RLIMIT_AS, reserved + (limits.reserved << 20))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime) + limits.cpu)
    _limit(resource.RLIMIT_CORE, 0)
    resident = max(resident, usage.ru_maxrss << 10)
    result = _judge(check, seed, folder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - resident
    if not result.kind and grown > limits.resident << 20:
        return Result(seed, kind="memory", detail=f"took more than {limits.resident} MiB ({result.verdict})")
    return result


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _judge(check: Check, seed: int, folder: Path) -> Result:
    try:
        return Result(seed, verdict=check(seed, folder))
    except Fault as fault:
        return Result(seed, kind=fault.kind, detail=fault.detail, text=traceback.format_exc())
    except BaseException as error:  # SystemExit too: what is not a verdict is a finding
        kind = "memory" if isinstance(error, MemoryError) else "traceback"
        detail = f"{type(error).__name__}: {error}"
        return Result(seed, "", kind, " ".join(detail.split())[:300], place_of(error), traceback.format_exc())


def place_of(error: BaseException) -> str:
    """Return file and function of the innermost frame that is the program's own, or else the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    roots = tuple(f"{Path(__file__).parents[2] / name}/" for name in ("pipeline", "tasks", "search"))
    own = [f for f in frames if f.filename.startswith(roots)] or frames
    return f"{os.path.relpath(own[-1].filename, Path(__file__).parents[2])}:{own[-1].name}" if own else ""


def _write(pipe: int, result: Result) -> None:
    fields = {name: getattr(result, name) for name in Result.__slots__}
    data = json.dumps({**fields, "text": result.text[-_MOST_TEXT:], "detail": result.detail[:2000]}).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]
