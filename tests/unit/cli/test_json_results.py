"""Proves that --json prints the results of commands as JSON alone."""

import json
from pathlib import Path

import pytest
import yaml
from exhibit_run import write_run
from small_run import small_spec
from typer.testing import CliRunner

from pipeline.cli.main import app
from tasks.embedded import checkpoint_path


def result(*words: object) -> tuple[int, object]:
    found = CliRunner().invoke(app, [*map(str, words), "--json"])
    return found.exit_code, json.loads(found.stdout)


def test_regress_gives_every_comparison(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", exhibits={})
    status, found = result("regress", run, "--baseline", run)
    assert status == 0 and isinstance(found, dict)
    assert {row["verdict"] for row in found["comparisons"]} == {"equal"} and found["level"] == 0.05
    assert {"arm", "task", "now", "before", "difference", "p"} <= found["comparisons"][0].keys()


def test_regress_writes_markdown_too(tmp_path: Path) -> None:
    run, file = write_run(tmp_path / "run", exhibits={}), tmp_path / "regress.md"
    status, found = result("regress", run, "--baseline", run, "--markdown", file)
    assert status == 0 and isinstance(found, dict) and file.read_text(encoding="utf-8").startswith("# toy against")
    refused = CliRunner().invoke(app, ["regress", str(run), "--baseline", str(run), "--markdown", "-", "--json"])
    assert refused.exit_code == 2 and "leave one of them out" in refused.stderr


def test_validate_lists_what_it_did_not_run(tmp_path: Path) -> None:
    spec = small_spec({"mnist": "embedded/mnist"}, tasks=["mnist"], plugins=["not_there"])
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert result("validate", tmp_path / "spec.yaml", "--no-code") == (0, {"not_run": ["plugins: not_there"]})


def test_history_gives_its_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", exhibits={})
    status, found = result("history", run, "--out", tmp_path / "history.html")
    assert status == 0 and isinstance(found, list) and len(found) == 1 and str(run) in found[0]["run"]


@pytest.mark.slow
def test_validate_gives_the_arms(tmp_path: Path) -> None:
    spec = small_spec({"mnist": checkpoint_path("mnist")}, tasks=["mnist"])
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    status, found = result("validate", tmp_path / "spec.yaml")
    assert status == 0 and isinstance(found, dict) and found["tasks"] == ["mnist"]
    lines = next(arm for arm in found["arms"] if arm["arm"] == "LiNeS")
    assert (lines["searches"], lines["candidates"], lines["kind"]) == (1, 3, "edit")


@pytest.mark.slow
def test_validate_gives_the_models_of_a_training(tmp_path: Path) -> None:
    spec = {
        "name": "models",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "tasks": ["mnist"],
        "methods": {"full": {}},
        "training": {"lr": 1e-4, "steps": 7},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert result("validate", tmp_path / "spec.yaml") == (
        0,
        {"models": [{"model": "full/mnist", "how": "full", "steps": 7}]},
    )
