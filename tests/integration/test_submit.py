"""Proves that a job on a real Ray head with a token is sent, followed, left, cancelled and resumed, or refused."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from published_sets import folders, writers
from ray_head import CutProxy, RayHead, free_ports, wait_until
from small_run import Lines, small_spec, tables, write_spec

from pipeline.cluster.ray_private import reload_token
from pipeline.versions import comparable_versions
from tasks.vision.published.files import JOB

TOKEN = "5" * 64
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def head(decoded: Path) -> Iterator[RayHead]:
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        head = RayHead(Path(folder), TOKEN, {"LINES_SWEEP_CACHE": str(decoded)})
        yield head
        head.close()


@pytest.fixture
def token_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process send the head's token during a test; Ray's memory of other tokens is cleared."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    reload_token()
    yield
    monkeypatch.undo()
    reload_token()


def command(*words: object) -> list[str]:
    return [str(Path(sys.executable).parent / "lines"), *map(str, words)]


def environment(token: str | None, home: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    shown = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return {**env, "HOME": str(home), **shown}


def run_command(words: list[str], home: Path, token: str | None = TOKEN) -> tuple[int, str]:
    found = subprocess.run(words, env=environment(token, home), capture_output=True, text=True)
    return found.returncode, " ".join((found.stdout + found.stderr).split())


def jobs_on_the_dashboard(head: RayHead) -> list[dict[str, Any]]:
    """Return all jobs as a user of the dashboard sees them."""
    asked = urllib.request.Request(f"{head.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(asked, timeout=60) as shown:
        found: list[dict[str, Any]] = json.load(shown)
    assert found
    return found


def scored(run: Path) -> int:
    journal = run / "journal.jsonl"
    return journal.read_text().count('"record":"score"') if journal.exists() else 0


@pytest.mark.usefixtures("token_here")
def test_a_job_is_left_by_ctrl_c_cancelled_and_resumed_with_the_same_tables(
    head: RayHead, lines: Lines, tmp_path: Path
) -> None:
    spec, run, at = lines.spec(shard_size=3), tmp_path / "on the head", ("--address", head.dashboard)
    words = command("submit", spec, *at, "--out", run, "--no-cache", "--workers", 1)
    env = environment(TOKEN, tmp_path)
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as submitting:
        assert submitting.stdout is not None
        shown = list(takewhile(lambda line: "Running entrypoint for job" not in line, submitting.stdout))
        submitting.send_signal(signal.SIGINT)
        said = "".join(shown) + submitting.communicate(timeout=60)[0]
    assert submitting.returncode == 130
    job = re.search(r"left (small-\d{8}-\d{6}-[0-9a-f]{4}), which continues: lines jobs attach", said)
    assert job is not None, said
    assert "running" in lines("jobs", "list", *at)[1]
    wait_until(lambda: scored(run) > 10)
    assert lines("jobs", "cancel", job[1], *at) == (0, f"{job[1]}: cancelled")
    status, said = lines("jobs", "attach", job[1], *at)
    assert status == 130 and "cancelled; what was scored is kept" in said, said
    before = scored(run)

    status, said = run_command([*words, "--detach"], tmp_path)
    again = re.search(r"job: (\S+)", said)
    assert status == 0 and again is not None and again[1] != job[1]
    proxy = CutProxy(int(head.dashboard.rpartition(":")[2]))
    status, said = lines("jobs", "attach", again[1], "--address", proxy.address)
    proxy.close()
    assert status == 0 and f"{again[1]}: succeeded; the run: {run}" in said, said
    assert proxy.broken >= 2 and said.count("Running entrypoint for job") == 1, "each line once, on broken connections"
    assert 10 < before < scored(run), "stopped in the middle"
    assert lines.run(spec, tmp_path / "here")[0] == 0
    assert tables(run) == tables(tmp_path / "here")
    assert not [p for p in run.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]
    listed = lines("jobs", "list", *at)[1]
    assert "stopped" in listed and "succeeded" in listed
    assert f"{again[1]}: had ended already" in lines("jobs", "cancel", again[1], *at)[1]
    assert "no such job" in lines("jobs", "attach", f"{again[1]}x", *at)[1]


@pytest.mark.usefixtures("token_here")
def test_a_cluster_of_other_versions_is_refused_by_their_names(
    head: RayHead, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli.submit.comparable_versions", lambda: {**comparable_versions(), "optuna": "4.9.0"})
    status, said = lines("submit", lines.spec(), "--address", head.dashboard, "--out", tmp_path / "run")
    assert status == 2, said
    assert "optuna" in said and "(submitted from 4.9.0)" in said and "install constraints.txt on both" in said
    assert "torch" not in said and not (tmp_path / "run").exists()
    for job in jobs_on_the_dashboard(head):
        assert set(job["runtime_env"]["env_vars"]) == {"PYTHONUNBUFFERED", "PYTHONSAFEPATH", "COLUMNS", JOB}
        assert TOKEN not in json.dumps(job)


@pytest.mark.usefixtures("token_here")
def test_a_job_has_all_images_published_sets_and_our_code_whatever_files_are_next_to_the_spec(
    head: RayHead, lines: Lines, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    for name in ("pipeline.py", "search.py", "tasks.py"):
        (beside / name).write_text("import pipeline.spec.run, search.space, tasks.registry")  # ours, not these files
    folders(beside / "own", ("cat", "venv"), {"test": "test"})
    (beside / "own" / ".gitignore").write_text("cat\n")
    writers()["MNIST"](tmp_path / "data")
    published = {"source": "vision/MNIST", "options": {"root": str(tmp_path / "data"), "check_counts": False}}
    spec = {**small_spec(lines.experts), "plugins": ["pipeline.py", "search.py", "tasks.py"], "controls": {}}
    spec |= {"arms": {"sum": {"merge": "sum"}}, "ood": {"own": {"source": "./own"}, "set": published}}
    path, run = write_spec(beside, spec), tmp_path / "on the head"
    for _ in range(2):  # the second job has another folder, and resumes the first one's journal
        status, said = lines("submit", path, "--address", head.dashboard, "--out", run, "--no-cache", "--workers", 1)
        assert status == 0 and "succeeded" in said, said
    status, said = lines.run(path, tmp_path / "here")
    assert status == 0, said
    assert tables(run) == tables(tmp_path / "here")


def test_a_missing_or_wrong_token_is_an_error(head: RayHead, tmp_path: Path) -> None:
    words = command("jobs", "list", "--address", head.dashboard)
    status, said = run_command(words, tmp_path, token=None)
    assert status == 2 and "asks for a token and there is none" in said
    status, said = run_command(words, tmp_path, token="f" * 64)
    assert status == 2 and "has another token" in said
    assert TOKEN not in said


def test_the_port_of_the_gcs_is_not_that_of_the_dashboard(head: RayHead, tmp_path: Path) -> None:
    status, said = run_command(command("jobs", "list", "--address", head.gcs), tmp_path)
    assert status == 2 and "answers but is not a Ray dashboard" in said and "8265" in said


def test_an_address_where_nothing_or_another_server_answers_is_an_error(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    status, said = run_command(command("jobs", "list", "--address", f"127.0.0.1:{port}"), tmp_path)
    assert status == 2 and "no Ray answers" in said and "ray dashboard cluster.yaml" in said

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        status, said = run_command(command("jobs", "list", "--address", f"127.0.0.1:{other.server_port}"), tmp_path)
        other.shutdown()
    assert status == 2 and "answers but is not a Ray dashboard" in said


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:{free}", "no Ray cluster answers there (UNAVAILABLE"),
        ("ray://127.0.0.1:{free}", "`lines submit SPEC --address http://HOST:8265`"),
        ("{gcs}", "the Ray cluster there asks for another token: put its own in ~/.ray/auth_token"),
    ],
)
def test_an_address_that_a_run_cannot_join_is_an_error(
    lines: Lines, head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # the head listens on the loopback address alone
    (free,) = free_ports(1)
    at = address.format(free=free, gcs=head.gcs)
    words = command("run", lines.spec(resources={"pool": "ray"}), "--address", at, "--out", tmp_path / "run")
    status, output = run_command(words, tmp_path, token="f" * 64)
    assert status == 2 and f"--address {at}: " in output and said in output, output
    assert not (tmp_path / "run").exists() and TOKEN not in output
