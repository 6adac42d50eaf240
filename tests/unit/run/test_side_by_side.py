"""Proves that the side-by-side benchmark counts the time of all processes, and refuses sides that answer otherwise."""

import sys
from pathlib import Path

import pytest

from benchmarks.peers import Counts, check
from benchmarks.side_by_side.timing import timed

#: Works for half a second in a process of its own session, which it does not wait for in the sense of wait(2).
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.5: pass"],
                         start_new_session=True, stdout=subprocess.PIPE)
child.stdout.read()
time.sleep(0.3)
print("done")
import os; os._exit(0)
"""


def test_the_time_of_children_that_nobody_waits_for_counts(tmp_path: Path) -> None:
    found = timed([sys.executable, "-c", PARENT], tmp_path / "log", {})
    assert found.output == "done\n" and 0.25 < found.cpu < 5 and found.wall > 0.5 and found.peak > 5


def test_a_command_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno such model"):
        timed(
            [sys.executable, "-c", "import sys; print('no such model', file=sys.stderr); sys.exit(3)"],
            tmp_path / "log",
            {},
        )


def test_sides_with_other_answers_or_another_best_are_refused() -> None:
    mine = Counts([[90, 80], [95, 85]], 1.0, [94, 84])
    assert check("same", mine, mine, 100) == 0
    assert check("one image on the border", mine, Counts([[90, 80], [95, 85]], 1.0, [94, 85]), 100) == 1
    assert check("stopped early", Counts([[None, None], [95, 85]], 1.0, [94, 84]), mine, 100) == 0
    for other in (Counts(mine.val, 0.05, mine.test), Counts([[90, 80], [90, 80]], 1.0, mine.test)):
        with pytest.raises(RuntimeError, match="answers differ"):
            check("other", mine, other, 100)
