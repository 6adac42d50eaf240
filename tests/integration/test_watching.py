"""Proves that `lines dashboard` follows a run while it works, on its page and in its studies."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_head import fetched, wait_until
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.run.run import run

ROOT = Path(__file__).parents[2]


class Dashboard:
    """`lines dashboard` in another process."""

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "dashboard", str(folder)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        self.page = self._address(self.process.stdout.readline())
        self.studies = self._address(self.process.stdout.readline())

    def _address(self, line: str) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + self.process.communicate()[0]
        return found[0]

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(fetched(f"{self.page}/state.json"))
        return found

    def trials(self) -> int:
        studies = json.loads(fetched(f"{self.studies}/api/studies"))["study_summaries"]
        ids = [study["study_id"] for study in studies]
        return sum(len(json.loads(fetched(f"{self.studies}/api/studies/{i}?after=0"))["trials"]) for i in ids)


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    followed = Dashboard(tmp_path / "run")
    yield followed
    followed.process.kill()
    followed.process.communicate()


class Slow(ToyEvaluator):
    """Takes 10 ms a shard, so that there is time to follow it."""

    def evaluate(self, request):  # type: ignore[no-untyped-def]
        time.sleep(0.01)
        return super().evaluate(request)


def test_a_run_is_followed_from_before_its_start_to_its_end(dashboard: Dashboard, tmp_path: Path) -> None:
    assert dashboard.state["state"] == "waiting"
    seen: list[tuple[str, int]] = []
    last = [0.0]

    def note(progress: object) -> None:
        if time.monotonic() - last[0] > 0.5:
            last[0] = time.monotonic()
            seen.append((dashboard.state["state"], dashboard.state["done"]))

    run(make_plan(toy_spec()), IDENTITY, tmp_path / "run", lambda: LocalPool(Slow("w")), None, note)
    wait_until(lambda: dashboard.state["state"] == "finished" and dashboard.state["figures"], 120)
    done = [count for state, count in seen if state == "running"]
    assert done == sorted(done) and len(set(done)) >= 2, f"it advances: {seen}"
    proposals = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").open()]
    searched = [r for r in proposals if r["record"] == "proposal" and r["point"]]
    assert dashboard.trials() == len(searched) > 20
    assert "Optuna Dashboard" in fetched(dashboard.page)
    ours = [c for c in psutil.Process(dashboard.process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(ours) == 2 and {c.laddr.ip for c in ours} == {"127.0.0.1"}


def test_ctrl_c_ends_it_quietly(dashboard: Dashboard) -> None:
    wait_until(lambda: dashboard.state, 120)
    dashboard.process.send_signal(2)
    output = dashboard.process.communicate(timeout=60)[0]
    assert dashboard.process.returncode == 0 and "Traceback" not in output


def test_studies_cannot_be_changed_from_the_browser(dashboard: Dashboard) -> None:
    request = urllib.request.Request(f"{dashboard.studies}/api/studies", b"{}", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=30)
    request = urllib.request.Request(f"{dashboard.studies}/api/studies", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=30)
