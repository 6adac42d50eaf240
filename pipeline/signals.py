"""Signals that end a command: Ctrl-C, SIGTERM of `kill` and schedulers, SIGHUP of a terminal that is closed."""

import errno
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: Exit status after Ctrl-C, as in shells.
STOPPED = 130

_NOTE = b"\nstopping: files and processes are closed first, which takes some seconds; Ctrl-C once more ends at once\n"


class _Stop:
    """The handler of all three signals; the first raises KeyboardInterrupt.

    A later one must not interrupt what ends Ray and closes the journal. The second Ctrl-C shows a note. The third is
    for an end that hangs: the process exits, and Ray's reaper kills the processes that are left.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.late = self.waiting = False
        self.repeated = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        if not self.stopping:
            self.stopping = True
            self.waiting = self.late
            if not self.late:
                raise KeyboardInterrupt
            return
        if number != signal.SIGINT:
            return
        self.repeated += 1
        if self.repeated > 1:
            os._exit(STOPPED)
        with suppress(OSError):
            os.write(2, _NOTE)


def stop_on_signals() -> None:
    """Make SIGTERM and SIGHUP end the command like Ctrl-C, and a repeated signal not disturb the end.

    SIGHUP and SIGINT stay ignored if they are ignored, as `nohup` and a shell's background do. Outside the main thread,
    where Python allows no signal handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


@contextmanager
def late_stop() -> Iterator[None]:
    """Let the first signal raise KeyboardInterrupt after the block, which an interruption would leave half-done.

    A third Ctrl-C still ends the process at once.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not isinstance(handler, _Stop):
        yield
        return
    handler.late = True
    try:
        yield
    finally:
        handler.late = False
        if handler.waiting:
            handler.waiting = False
            raise KeyboardInterrupt


def is_stopping() -> bool:
    """Whether a signal has begun to end this command.

    Native code may turn the KeyboardInterrupt into an error of its own: torch says that it cannot tell a shape.
    """
    handler = signal.getsignal(signal.SIGTERM)
    return isinstance(handler, _Stop) and handler.stopping


@contextmanager
def signals_to_command_only() -> Iterator[None]:
    """Start processes within that leave Ctrl-C and SIGHUP to the command, which ends them.

    - A closed terminal sends SIGHUP to all processes at once. Ray's servers would die of it before the command, which
      then waits for them. So they start with SIGHUP blocked; a SIGHUP of that time reaches the command afterwards,
      unless another of its threads takes it.
    - `ray.init` moves the command to a process group of its own. In a script, Ctrl-C and SIGHUP of the terminal would
      then reach the script but not the command. So the command goes back.
    """
    group, blocked = os.getpgrp(), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        if os.getpgrp() != group:
            with suppress(OSError):  # the group has ended
                os.setpgid(0, group)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def terminal_closed(error: Exception) -> bool:
    """Whether an error is that of a write to a closed terminal; nothing more is written to it.

    The kernel sends SIGHUP to the shell first; a command may write before the shell passes it on, or ends.
    """
    if not isinstance(error, OSError) or error.errno != errno.EIO:
        return False
    for descriptor in (1, 2):
        try:
            os.get_terminal_size(descriptor)
        except OSError as found:
            if found.errno == errno.EIO:
                _leave_terminal()
                return True
    return False


def _leave_terminal() -> None:
    """Write no more to a terminal that is closed, where every write is an error."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        with suppress(OSError):  # it has been closed
            # `isatty` is False for a terminal that is closed.
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
