"""Proves that SIGTERM, a closed terminal and Ctrl-C, also twice, end a run with a complete journal and no process left.

The workers of a killed driver end too.
"""

import os
import select
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray_head import wait_until
from small_run import Lines
from toy_nodes import cluster_of_nodes

from pipeline.records.journal import read_history
from pipeline.signals import STOPPED

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
_MAIN = "from pipeline.cli.main import main; main()"
_DRIVER = """
import functools, sys
import ray
from pipeline.records.ledger import Ledger
from pipeline.pools.ray_pool import RayPool
from pipeline.recipe import Recipe
from pipeline.cluster.capacity import ActorShape
from toy import IDENTITY
from toy_nodes import Asleep
ray.init(address=sys.argv[1], log_to_driver=False)
pool = RayPool(functools.partial(Asleep, file=sys.argv[2]), ActorShape(1))
pool.submit(Ledger(IDENTITY, 1000, {}).requests(Recipe.make("sum"), ["cats"], "val"))
pool.wait()
"""


def test_sigterm_ends_a_run_like_ctrl_c_under_a_long_tmpdir_and_the_same_command_resumes_it(
    lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)  # longer than the addresses of Ray's sockets may be
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    spec, folder = lines.spec(resources={"pool": "ray", "workers": 1}), tmp_path / "run"
    words = [sys.executable, "-c", _MAIN, "run", str(spec), "--out", str(folder), "--no-cache"]
    command = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_until(lambda: command.poll() is not None or (folder.exists() and len(read_history(folder).answers) >= 2), 120)
    children = psutil.Process(command.pid).children(recursive=True)
    command.terminate()
    _, said = command.communicate(timeout=120)
    assert command.returncode == STOPPED, said
    assert "stopped: what was scored so far is kept" in " ".join(said.split())
    assert children and not psutil.wait_procs(children, timeout=60)[1]
    assert len(read_history(folder).answers) >= 2 and not (folder / "provenance.json").exists()
    assert not (long / "ray").exists()
    status, output = lines.run(lines.spec(resources={"pool": "local"}), folder)
    assert status == 0, output


def test_sigterm_while_ray_starts_leaves_no_process(lines: Lines, tmp_path: Path) -> None:
    """Ray's own handlers would abort the command."""
    spec = lines.spec(resources={"pool": "ray", "workers": 1})
    words = [sys.executable, "-c", _MAIN, "run", str(spec), "--out", str(tmp_path / "run"), "--no-cache"]
    command = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    started = psutil.Process(command.pid)
    wait_until(lambda: command.poll() is not None or len(started.children()) > 1, 120)  # servers, of which more follow
    children = started.children(recursive=True)
    command.terminate()
    wait_until(lambda: command.poll() is not None or bool(children.extend(started.children(recursive=True))), 120)
    assert command.returncode == STOPPED, command.communicate()
    assert children and not psutil.wait_procs(children, timeout=60)[1]


@pytest.mark.parametrize("in_script", [False, True], ids=["closed", "Ctrl-C twice in a script"])
def test_ctrl_c_twice_or_a_closed_terminal_end_a_run_and_its_ray(in_script: bool, lines: Lines, tmp_path: Path) -> None:
    spec, folder = lines.spec(resources={"pool": "ray", "workers": 1}), tmp_path / "run"
    code, status = tmp_path / "lines.py", tmp_path / "status"
    code.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom pipeline.cli.main import main\nmain()\n")
    words = [sys.executable, str(code), "run", str(spec), "--out", str(folder), "--no-cache"]
    if in_script:  # a shell without job control: its process group is that of the terminal
        words = ["/bin/sh", "-c", f"trap : INT; {' '.join(words)}; echo $? > {status}"]
    process, terminal = os.forkpty()
    if process == 0:
        os.execv(words[0], words)
    output = bytearray()

    def shown() -> bool:
        """Read the terminal, which holds 4 KiB and then makes the run wait."""
        while select.select([terminal], [], [], 0)[0]:
            try:
                output.extend(os.read(terminal, 10_000))
            except OSError:  # all processes have ended
                return True
        return len(read_history(folder).answers) >= 2 if folder.exists() else False

    wait_until(shown, 200)
    children = psutil.Process(process).children(recursive=True)
    if in_script:
        for count in (1, 2):
            os.write(terminal, b"\x03")
            wait_until(lambda count=count: shown() and output.count(b"^C") >= count, 20)
    else:
        os.close(terminal)
    ended: list[int] = []

    def has_ended() -> bool:
        found, number = os.waitpid(process, os.WNOHANG)
        ended.extend([os.waitstatus_to_exitcode(number)] * bool(found))
        return bool(found) or (in_script and shown() and False)

    wait_until(has_ended, 120)
    assert (int(status.read_text()) if in_script else ended[0]) == STOPPED, output
    assert b"Traceback" not in output
    assert children and not psutil.wait_procs(children, timeout=60)[1]
    assert len(read_history(folder).answers) >= 2 and not (folder / "provenance.json").exists()


def test_workers_of_a_driver_that_is_killed_end(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with cluster_of_nodes({"num_cpus": 1}) as nodes:
        driver = subprocess.Popen([sys.executable, "-c", _DRIVER, nodes.address, str(file)])
        wait_until(lambda: driver.poll() is not None or (file.exists() and file.read_text()), 120)
        worker = psutil.Process(int(file.read_text()))
        driver.kill()
        driver.wait()
        wait_until(lambda: not worker.is_running(), 120)
