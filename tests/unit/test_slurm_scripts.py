"""Proves what the scripts of deploy/slurm start, and that they pass SIGTERM on and requeue; all commands are stubs."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "deploy" / "slurm").glob("*.sbatch"))
#: `ray start --head` opens its port, as the script waits for it; all stubs write down how they were called.
_STUBS = {
    "ray": """
echo "ray $SLURM_PROCID $RAY_AUTH_MODE $* $(stat -c %a "$RAY_TMPDIR")" >> "$CALLS"
if [[ $* == *--head* ]]; then exec PYTHON -c "
import os, socket, time
with socket.create_server(('127.0.0.1', int(os.environ['PORT']))): time.sleep(60)"; fi
exec sleep 60
""",
    "srun": """
echo "srun $*" >> "$CALLS"
while [[ $1 == --* ]]; do shift; done
trap 'kill $(jobs -p)' TERM
for task in 0 1 2; do SLURM_PROCID=$task "$@" & done
wait
""",
    "lines": """
trap 'echo "lines stopped" >> "$CALLS"; exit "$STATUS_OF_STOPPED_LINES"' TERM
echo "lines $*" >> "$CALLS"
for _ in $(seq "$SECONDS_OF_LINES"); do sleep 0.1; done
exit "$STATUS_OF_LINES"
""",
    "scontrol": 'echo "scontrol $*" >> "$CALLS"\n',
    "hostname": "echo 127.0.0.1\n",
}


class Job:
    """A script that runs as Slurm's batch shell."""

    def __init__(self, script: Path, folder: Path, tenths: int, status: int = 0, stopped: int = 130) -> None:
        self._calls = folder / "calls"
        self._calls.touch()
        for name, text in _STUBS.items():
            (folder / name).write_text("#!/bin/bash\n" + text.replace("PYTHON", sys.executable))
            (folder / name).chmod(0o755)
        env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(self._calls)}
        env |= {"SLURM_JOB_ID": str(free_job()), "SLURM_CPUS_ON_NODE": "6", "SLURM_CPUS_PER_TASK": "3"}
        env |= {"SECONDS_OF_LINES": str(tenths), "STATUS_OF_LINES": str(status)}
        env |= {"STATUS_OF_STOPPED_LINES": str(stopped)}
        self.number = env["SLURM_JOB_ID"]
        words = ["bash", str(script), "spec.yaml", "--out", "/shared/run"]
        self._process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)

    def terminate_once_lines_runs(self) -> None:
        end = time.monotonic() + 30
        while not any(call.startswith("lines run") for call in self.calls()):
            assert time.monotonic() < end and self._process.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        self._process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        _, errors = self._process.communicate(timeout=60)
        print(errors)
        return self._process.returncode

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


def free_job() -> int:
    """Return a job's number whose port is free."""
    for number in range(os.getpid() % 5000, 5000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", 20000 + 4 * number)):
                return number
    raise AssertionError("no free port")


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.mark.slow
def test_bash_reads_the_scripts(script: Path) -> None:
    assert len(SCRIPTS) == 2
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 2])
def test_the_status_of_the_job_is_that_of_lines(script: Path, status: int, tmp_path: Path) -> None:
    job = Job(script, tmp_path, tenths=1, status=status)
    assert job.end() == status
    assert not [call for call in job.calls() if call.startswith("scontrol")]


@pytest.mark.slow
def test_at_the_time_limit_the_run_is_stopped_and_the_job_is_requeued(script: Path, tmp_path: Path) -> None:
    job = Job(script, tmp_path, tenths=300)
    job.terminate_once_lines_runs()
    assert job.end() == 130
    assert "lines stopped" in job.calls() and f"scontrol requeue {job.number}" in job.calls()


@pytest.mark.slow
def test_a_run_that_fails_while_it_is_stopped_is_not_requeued(script: Path, tmp_path: Path) -> None:
    job = Job(script, tmp_path, tenths=300, stopped=2)
    job.terminate_once_lines_runs()
    assert job.end() == 2
    assert not [call for call in job.calls() if call.startswith("scontrol")]


@pytest.mark.slow
def test_every_node_gets_a_ray_with_the_jobs_cores_and_lines_joins_the_head(tmp_path: Path) -> None:
    job = Job(ROOT / "deploy" / "slurm" / "several-nodes.sbatch", tmp_path, tenths=20)
    assert job.end() == 0
    port = 20000 + 4 * int(job.number)
    rays = sorted(call for call in job.calls() if call.startswith("ray"))
    assert [call.split()[:3] for call in rays] == [["ray", str(task), "token"] for task in range(3)]
    assert all("--num-cpus=6" in call and call.endswith(" 700") for call in rays)
    assert f"--head --node-ip-address=127.0.0.1 --port={port}" in rays[0]
    assert all(f"--address=127.0.0.1:{port}" in call for call in rays[1:])
    assert f"lines run spec.yaml --out /shared/run --address 127.0.0.1:{port}" in job.calls()
    sruns = [call for call in job.calls() if call.startswith("srun")]
    assert len(sruns) == 2 and "--cpus-per-task=3" in sruns[0] and sruns[1].endswith(f"rm -rf /tmp/lines-{job.number}")
    assert not Path(f"/tmp/lines-{job.number}").exists()


@pytest.mark.slow
def test_every_option_of_ray_start_exists() -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    used = set(re.findall(r'"?(--[a-z-]+)', "\n".join(_ray_lines())))
    assert used and used <= known


def _ray_lines() -> list[str]:
    text = (ROOT / "deploy" / "slurm" / "several-nodes.sbatch").read_text()
    return [line for line in text.splitlines() if "options" in line and "lines run" not in line]
