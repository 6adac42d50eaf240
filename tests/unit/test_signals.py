"""Proves how a command ends after one signal and after several, in real processes without Ray."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A command that works until it is stopped, then ends for a second.
_CODE = """
import time
import typer
from pipeline.console import user_errors
def work():
    with user_errors("rerun"):
        try:
            print("works", flush=True)
            time.sleep(30)
        finally:
            print("ends", flush=True)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                time.sleep(0.05)
            print("ended", flush=True)
typer.run(work)
"""


_LATE = "from pipeline.signals import late_stop\n"


class Command:
    """A started command that works."""

    def __init__(self, *before: str, code: str = _CODE) -> None:
        words = [*before, sys.executable, "-c", code]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
        self.expect("works")

    def expect(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{line}\n"

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Return the exit status and the rest of stdout and stderr."""
        out, errors = self._process.communicate(timeout=60)
        assert "Traceback" not in errors
        return self._process.returncode, out, errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_ends_the_command_with_130(number: int) -> None:
    command = Command()
    command.send(number)
    status, out, errors = command.end()
    assert (status, out) == (130, "ends\nended\n") and "stopped: rerun" in errors


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_disturb_the_end(second: int) -> None:
    command = Command()
    command.send(signal.SIGINT)
    command.expect("ends")
    command.send(second)
    status, out, errors = command.end()
    assert (status, out) == (130, "ended\n") and "stopped: rerun" in errors
    assert ("Ctrl-C once more ends at once" in errors) == (second == signal.SIGINT)


@pytest.mark.slow
def test_a_third_ctrl_c_ends_at_once() -> None:
    command = Command()
    command.send(signal.SIGINT)
    command.expect("ends")
    command.send(signal.SIGINT)
    errors = command._process.stderr
    assert errors is not None
    while "once more" not in errors.readline():
        pass
    command.send(signal.SIGINT)
    assert command.end()[:2] == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_what_must_not_be_interrupted_ends_the_command_after_it(number: int) -> None:
    within = 'with late_stop():\n                print("works", flush=True); time.sleep(1); print("whole", flush=True)'
    code = _CODE.replace('print("works", flush=True)', within).replace("user_errors\n", "user_errors\n" + _LATE)
    command = Command(code=code)
    command.send(number)
    status, out, errors = command.end()
    assert (status, out) == (130, "whole\nends\nended\n") and "stopped: rerun" in errors


@pytest.mark.slow
def test_an_error_that_native_code_makes_of_a_signal_is_no_error() -> None:
    wait = "def wait():\n    try: time.sleep(30)\n    except KeyboardInterrupt: raise ValueError('no shape')\n"
    code = _CODE.replace("time.sleep(30)", "wait()").replace("def work()", f"{wait}def work()")
    command = Command(code=code)
    command.send(signal.SIGINT)
    status, _, errors = command.end()
    assert status == 130 and "stopped: rerun" in errors and "no shape" not in errors


@pytest.mark.slow
def test_under_nohup_sighup_stays_ignored() -> None:
    command = Command("nohup")
    command.send(signal.SIGHUP)
    command.send(signal.SIGTERM)
    status, out, errors = command.end()
    assert (status, out) == (130, "ends\nended\n") and "stopped: rerun" in errors


@pytest.mark.slow
def test_a_closed_terminal_is_no_error() -> None:
    process, terminal = os.forkpty()
    if process == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", _CODE])
    assert b"works" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130


@pytest.mark.slow
def test_a_terminal_that_is_closed_without_a_signal_ends_the_command_at_its_next_line() -> None:
    code = _CODE.replace("time.sleep(30)", "[print('line', flush=True) or time.sleep(0.1) for _ in range(300)]")
    process, terminal = os.forkpty()
    if process == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert b"works" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
