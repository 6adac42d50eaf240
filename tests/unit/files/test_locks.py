"""Proves that a lock file has one holder among processes and threads, and that a killed holder frees it."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest

from tasks.files.locks import locked

HOLD = "import sys, time; from pathlib import Path; from tasks.files.locks import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"


def holder(path: Path) -> subprocess.Popen[str]:
    """Start another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_excluded_until_the_holder_is_killed(tmp_path: Path) -> None:
    path, busy = tmp_path / "a.lock", RuntimeError("busy")
    process = holder(path)
    with pytest.raises(RuntimeError, match="busy"), locked(path, busy):
        pass
    threading.Timer(0.3, process.kill).start()
    started = time.monotonic()
    with locked(path):
        assert time.monotonic() - started > 0.2 and path.exists()
    process.communicate()


def test_threads_of_one_process_take_turns(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(5):
            with locked(tmp_path / "a.lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_it_excludes_a_program_that_locks_the_file_itself(tmp_path: Path) -> None:
    """Versions before this one called flock."""
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "a.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="busy"), locked(tmp_path / "a.lock", RuntimeError("busy")):
            pass


def test_a_file_system_without_locks_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: filelock.FileLock) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "_acquire", refused)
    with pytest.raises(ValueError, match=r"a\.lock: cannot be locked \(.*: mount NFS"), locked(tmp_path / "a.lock"):
        pass
