"""Proves that the nightly examples work: the script runs, and the steps of the workflow run twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_run import TASKS, Lines

from pipeline.plan.plan import make_plan
from pipeline.spec.load import load_spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "nightly"


@pytest.fixture
def shell(lines: Lines, decoded: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds `lines`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "LINES_SWEEP_CACHE": str(decoded), "HOME": str(tmp_path)}


def tiny(lines: Lines) -> Path:
    experts = {name: f"embedded/{name}" for name in TASKS}
    arms = {"sum": {"merge": "sum"}}
    return lines.spec(arms=arms, controls=[], limits={"val": 15, "test": 30}, shard_size=30, experts=experts)


def bash(text: str, folder: Path, env: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-c", text, *map(str, words)], cwd=folder, env=env, capture_output=True, text=True
    )


def test_the_script_runs_keeps_the_results_and_reports_a_regression(
    lines: Lines, shell: dict[str, str], tmp_path: Path
) -> None:
    spec, kept = tiny(lines), tmp_path / "kept"
    call = f"{EXAMPLE / 'nightly.sh'} {spec} {kept}"
    spec.write_text(spec.read_text() + "regress: {minimum: 1.01}\n")
    night = bash(call, tmp_path, {**shell, "ON_REGRESSION": "cat > message"})
    assert night.returncode == 1, night.stdout + night.stderr
    assert (kept / "baseline.parquet").exists() and (kept / "history.html").exists()
    assert "regressed" in (kept / "message").read_text() and (kept / "regress.xml").exists()
    assert [len(list((kept / name).iterdir())) for name in ("history", "logs", "runs")] == [1, 1, 1]
    busy = bash(f"exec 8>{kept}/lock; flock 8; {call}", tmp_path, shell)
    assert busy.returncode == 2 and "still running" in busy.stderr


STUB = """#!/bin/sh
echo "$1" >> "$HOME/calls"
case $1 in
  run) exit "$RUN" ;;
  baseline) touch "$4" ;;
  regress) echo "what regressed" > regress.md; exit "$REGRESS" ;;
  history) exit "$HISTORY" ;;
esac
"""


@pytest.mark.parametrize(
    ("run", "regress", "history", "command", "status", "message"),
    [
        (0, 0, 0, "cat > $HOME/message", 0, None),
        (0, 0, 2, "cat > $HOME/message", 0, None),
        (0, 1, 2, "cat > $HOME/message", 1, "what regressed"),
        (0, 2, 0, "cat > $HOME/message", 2, "status 2"),
        (1, 0, 0, "cat > $HOME/message", 2, "status 2"),
        (0, 1, 0, "no-such-command", 1, None),
        (0, 2, 0, "", 2, None),
    ],
)
def test_the_exit_status_of_the_script_is_that_of_the_comparison(
    tmp_path: Path, run: int, regress: int, history: int, command: str, status: int, message: str | None
) -> None:
    """With a stub in place of `lines`, which exits with the given statuses."""
    (tmp_path / "lines").write_text(STUB)
    (tmp_path / "lines").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "ON_REGRESSION": command}
    env |= {"RUN": str(run), "REGRESS": str(regress), "HISTORY": str(history)}
    night = bash(f"{EXAMPLE / 'nightly.sh'} spec.yaml kept", tmp_path, env)
    assert night.returncode == status, night.stdout + night.stderr
    sent = tmp_path / "message"
    assert (message in sent.read_text()) if message else not sent.exists()


def test_the_steps_of_the_workflow_work(lines: Lines, shell: dict[str, str], tmp_path: Path) -> None:
    workflow = yaml.safe_load((EXAMPLE / "github-workflow.yml").read_text())
    steps = {s["name"]: s["run"] for s in workflow["jobs"]["benchmark"]["steps"] if "run" in s}
    assert list(steps) == ["install", "history", "run", "regress", "summary", "keep"]
    spec = tiny(lines)
    env = {**shell, "SPEC": str(spec), "BRANCH": workflow["env"]["BRANCH"], "GITHUB_STEP_SUMMARY": str(tmp_path / "s")}
    commit = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one"
    made = bash(
        f"git init -q --bare hub; git init -q seed; cd seed; {commit}; git push -q ../hub HEAD:main", tmp_path, env
    )
    assert made.returncode == 0, made.stderr
    for night in ("first", "second"):
        assert bash(f"git clone -q -b main hub {night}", tmp_path, env).returncode == 0
        if night == "second":  # reuse the scores: only the kept files matter here
            steps["run"] = "mkdir runs; cp -r ../first/runs/nightly runs"
        for name, text in list(steps.items())[1:]:
            found = bash(text, tmp_path / night, env)
            assert found.returncode == 0, f"{night}, {name}: {found.stdout}{found.stderr}"
    listed = bash(f"git -C hub ls-tree -r --name-only {env['BRANCH']}", tmp_path, env).stdout.split()
    assert {"baseline.parquet", "history.html"} < set(listed) and sum(n.startswith("history/") for n in listed) == 2
    assert "against its baseline" in (tmp_path / "s").read_text()


def test_the_example_s_spec_is_valid_and_the_crontab_calls_the_script() -> None:
    assert make_plan(load_spec(EXAMPLE / "nightly.yaml")).spec.regress.tolerance == 0.02
    line = (EXAMPLE / "crontab").read_text().splitlines()[-1]
    assert line.split(None, 5)[:5] == ["17", "3", "*", "*", "*"] and "examples/nightly/nightly.sh" in line
