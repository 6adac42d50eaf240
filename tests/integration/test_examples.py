"""Every example spec is valid; the demo runs end to end on Ray with a worker killed, and equals the local pool's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.plan.plan import make_plan
from pipeline.report.page import summary
from pipeline.spec.load import load_spec

EXAMPLES = Path(__file__).parents[2] / "examples"
TABLES = ("candidates.parquet", "scores.parquet", "samples/mnist.parquet")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_spec_is_valid(path: Path) -> None:
    make_plan(load_spec(path))


def small_demo(folder: Path) -> Path:
    """The demo with a fraction of its data and two experts, so that it ends within seconds."""
    spec = yaml.safe_load((EXAMPLES / "demo.yaml").read_text())
    spec["experts"] = {name: spec["experts"][name] for name in ("mnist", "cyrillic")}
    spec["tasks"] = ["mnist", "cyrillic", "emoji"]
    spec["limits"], spec["shard_size"] = {"val": 24, "test": 32}, 12
    spec["controls"]["constants"] = 5
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def lines(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_a_worker(driver: subprocess.Popen[str], journal: Path) -> bool:
    """SIGKILL one Ray worker once scores are coming in."""
    while driver.poll() is None:
        if journal.exists() and journal.read_text().count('"record":"score"') > 20:
            for process in psutil.Process(driver.pid).children(recursive=True):
                if process.name().startswith("ray::EvaluatorActor.ev"):  # evaluating just now
                    os.kill(process.pid, signal.SIGKILL)
                    return True
        time.sleep(0.02)
    return False


@pytest.mark.cluster
def test_the_demo_on_ray_with_a_worker_killed_equals_the_local_pool(tmp_path: Path) -> None:
    spec = small_demo(tmp_path)
    local = lines("run", str(spec), "--out", str(tmp_path / "local"), "--pool", "local", "--no-cache")
    output, _ = local.communicate()
    assert local.returncode == 0, output
    driver = lines("run", str(spec), "--out", str(tmp_path / "ray"), "--no-cache", "--workers", "2")
    killed = kill_a_worker(driver, tmp_path / "ray" / "journal.jsonl")
    output, _ = driver.communicate()
    assert driver.returncode == 0, output
    assert killed, output
    for table in TABLES:
        assert (tmp_path / "ray" / table).read_bytes() == (tmp_path / "local" / table).read_bytes(), table
    provenance = json.loads((tmp_path / "ray" / "provenance.json").read_text())
    assert provenance["complete"] and len(provenance["workers"]) >= 2
    arms = set(pq.read_table(tmp_path / "ray" / "candidates.parquet")["arm"].to_pylist())
    assert {"pre-trained", "fine-tuned", "fine-tuned + LiNeS", "task arithmetic", "task arithmetic + LiNeS"} <= arms
    assert {"fine-tuned + LiNeS, constant", "fine-tuned + LiNeS, reversed", "fine-tuned + LiNeS, uniform"} <= arms
    assert summary(tmp_path / "ray").sentences
    assert (tmp_path / "ray" / "report.html").stat().st_size > 700_000 and "report.md" in output
