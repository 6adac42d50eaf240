"""Proves that a local Ray has the cores that its process may use, not all of the machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CODE = """
from pipeline.cluster.session import local_ray
from pipeline.cluster.worker_shapes import actor_shape
from pipeline.spec.resources import Resources
with local_ray():
    import ray
    print(ray.cluster_resources()["CPU"], actor_shape(Resources()).workers)
"""


@pytest.mark.cluster
@pytest.mark.skipif(not shutil.which("taskset"), reason="taskset is a command of Linux")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core cannot be limited to one")
def test_under_taskset_ray_has_one_core_and_a_run_one_worker() -> None:
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", _CODE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1.0", "1"]
