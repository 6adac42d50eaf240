"""Proves that a command that has torch ends well without streams, and lets its caller go on."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Takes torch for imported, which decides how a command ends, without the seconds that importing it takes.
SETUP = """
import sys
from pipeline.cli.main import main
sys.modules["torch"], sys.argv = sys, ["lines", "--version"]
"""


def shell(line: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line, sys.executable, SETUP + code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_streams_are_no_failure(closed: str) -> None:
    ended = shell(f'exec "$0" -c "$1" {closed}', "main()")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert ended.stdout.startswith("lines-sweep ") != (closed == ">&-")


def test_a_function_that_calls_it_goes_on() -> None:
    code = "def wrapper():\n  main()\ntry: wrapper()\nfinally: print('went on')"
    assert shell('exec "$0" -c "$1"', code).stdout.endswith("\nwent on\n")
