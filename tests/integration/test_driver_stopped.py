"""Proves that SIGTERM ends a run like Ctrl-C, with a complete journal; the workers of a killed driver end."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray_head import wait_until
from small_run import Lines
from toy_nodes import cluster_of_nodes

from pipeline.console import STOPPED
from pipeline.records.journal import read_history

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
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


def test_sigterm_ends_a_run_like_ctrl_c_and_the_same_command_resumes_it(lines: Lines, tmp_path: Path) -> None:
    spec, folder = lines.spec(resources={"pool": "ray", "workers": 1}), tmp_path / "run"
    main = "from pipeline.cli.main import main; main()"
    words = [sys.executable, "-c", main, "run", str(spec), "--out", str(folder), "--no-cache"]
    command = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_until(lambda: command.poll() is not None or (folder.exists() and len(read_history(folder).answers) >= 2), 120)
    children = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGTERM)
    _, said = command.communicate(timeout=120)
    assert command.returncode == STOPPED, said
    assert "stopped: what was scored so far is kept" in " ".join(said.split())
    assert children and not psutil.wait_procs(children, timeout=60)[1]
    kept = len(read_history(folder).answers)
    assert kept >= 2 and not (folder / "provenance.json").exists()
    status, output = lines.run(lines.spec(resources={"pool": "local"}), folder)
    assert status == 0, output


def test_workers_of_a_driver_that_is_killed_end(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with cluster_of_nodes({"num_cpus": 1}) as nodes:
        driver = subprocess.Popen([sys.executable, "-c", _DRIVER, nodes.address, str(file)])
        wait_until(lambda: driver.poll() is not None or (file.exists() and file.read_text()), 120)
        worker = psutil.Process(int(file.read_text()))
        driver.kill()
        driver.wait()
        wait_until(lambda: not worker.is_running(), 120)
