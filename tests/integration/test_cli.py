"""The command line on real models: validate, run, resume, report, export; user errors with status 2."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from small_run import TASKS, Lines, tables

RESULTS = ("candidates.parquet", "scores.parquet", "provenance.json", "report.html", "report.md", "journal.jsonl")


def test_a_run_leaves_tables_provenance_and_report(undisturbed: Path) -> None:
    assert all((undisturbed / name).stat().st_size for name in RESULTS)
    rows = pq.read_table(undisturbed / "candidates.parquet").to_pylist()
    assert {r["state"] for r in rows} == {"complete"}
    assert {r["arm"] for r in rows if r["control"]} == {
        f"LiNeS, {c}" for c in ("uniform", "equal norm", "constant", "reversed")
    }
    scores = pq.read_table(undisturbed / "scores.parquet").to_pylist()
    assert {(s["task"], s["split"], s["n"]) for s in scores} == {(t, s, 30) for t in TASKS for s in ("val", "test")}
    provenance = json.loads((undisturbed / "provenance.json").read_text())
    assert provenance["complete"] and not provenance["failures"] and len(provenance["checkpoints"]) == 1 + len(TASKS)


def test_validate_lists_the_arms_and_evaluates_nothing(lines: Lines, tmp_path: Path) -> None:
    status, output = lines("validate", lines.spec())
    assert status == 0, output
    assert "8 blocks, 2 tasks, 60 validation and 60 test samples" in output and "LiNeS, reversed" in output
    assert [p.name for p in tmp_path.iterdir()] == ["spec.yaml"]


def test_inspect_predicts_which_edits_have_room_and_a_run_keeps_it(
    lines: Lines, undisturbed: Path, tmp_path: Path
) -> None:
    status, output = lines("inspect", lines.spec(), "--out", tmp_path / "out")
    assert status == 0, output
    assert "Distance to the base" in output and output.count("removing the first third costs the target") == 3
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert [edit["name"] for edit in found["foretold"]] == [*TASKS, "sum"]
    files = {"inspect.html", "inspect.json", "experts.parquet", "pairs.parquet", "gate.parquet"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    run = shutil.copytree(undisturbed, tmp_path / "run")
    status, output = lines("run", lines.spec(), "--out", run)
    assert status == 0 and "Was the gate right?" in (run / "report.md").read_text() and "The gate " in output
    assert json.loads((run / "inspect.json").read_text()) == {"gate": found["gate"]}


def test_the_same_command_again_evaluates_nothing_and_keeps_the_tables(
    lines: Lines, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither Ray nor a worker is started, whichever pool is asked for."""
    monkeypatch.setattr("pipeline.cluster.session.local_ray", _not_needed)
    monkeypatch.setattr("pipeline.workers.worker.Worker", _not_needed)
    journal, before = undisturbed / "journal.jsonl", tables(undisturbed)
    scored, workers = journal.read_text().count('"record":"score"'), _workers(undisturbed)
    for pool in ("ray", "local"):
        status, output = lines.run(lines.spec(resources={"pool": pool}), undisturbed)
        assert status == 0, output
    assert journal.read_text().count('"record":"score"') == scored and tables(undisturbed) == before
    assert _workers(undisturbed) == workers and [w["name"] for w in workers] == ["local"]


def _not_needed(*args: object, **kwargs: object) -> None:
    raise AssertionError("all is known")


def _workers(run: Path) -> list[dict[str, str]]:
    workers: list[dict[str, str]] = json.loads((run / "provenance.json").read_text())["workers"]
    return workers


def test_a_report_is_rebuilt_from_the_journal(lines: Lines, undisturbed: Path) -> None:
    before = tables(undisturbed)
    for name in (*before, "provenance.json", "report.html", "report.md"):
        (undisturbed / name).unlink()
    status, output = lines("report", undisturbed)
    assert status == 0, output
    assert tables(undisturbed) == before and all((undisturbed / name).stat().st_size for name in RESULTS)


def test_what_an_arm_chose_is_exported(lines: Lines, undisturbed: Path, tmp_path: Path) -> None:
    status, output = lines("export", undisturbed, "--arm", "LiNeS", "--expert", "mnist", "-o", tmp_path / "model")
    assert status == 0, output
    names = {p.name for p in (tmp_path / "model").iterdir()}
    assert {"open_clip_model.safetensors", "open_clip_config.json", "recipe.json", "README.md"} <= names
    status, output = lines("export", undisturbed, "--arm", "LiNes", "--expert", "mnist", "-o", tmp_path / "other")
    assert status == 2 and "LiNeS" in output and not (tmp_path / "other").exists()
    status, output = lines("export", undisturbed, "--arm", "sum", "--mergekit", "-o", tmp_path / "sum.yml")
    assert status == 2 and "--mergekit: backbone.family must be causal or seq2seq, got open_clip" in output, output
    assert not (tmp_path / "sum.yml").exists()


def test_the_schema_is_json(lines: Lines) -> None:
    status, output = lines("schema")
    assert status == 0 and "shard_size" in json.loads(output)["$defs"]["RunSpec"]["properties"]


def test_another_run_in_the_same_folder_is_refused_and_the_first_is_kept(lines: Lines, undisturbed: Path) -> None:
    before = tables(undisturbed)
    status, output = lines.run(lines.spec(seed=7), undisturbed)
    assert status == 2 and "differs in spec.seed" in output and "give another --out" in output
    spec = lines.spec()
    arms = yaml.safe_load(spec.read_text())["arms"]
    name = next(iter(arms))
    status, output = lines.run(lines.spec(arms={**arms, name: {**arms[name], "search": {"in_flight": 3}}}), undisturbed)
    assert status == 2 and f"differs in spec.arms.{name}.search.in_flight: give" in output
    assert tables(undisturbed) == before


SCALING = {"function": "liner", "alpha": 0.5}
BAD_SPECS = [
    ({"limit": 5}, "spec.yaml: limit: unknown key; did you mean 'limits'?"),
    ({"arms": {"x": {"edit": "each_expert", "scaling": SCALING}}}, "arms.x.scaling.function: unknown name 'liner'"),
    ({"arms": {"x": {"merge": "sum", "scaling": {"alpha": {"grid": []}}}}}, "arms.x.scaling.alpha.grid: must have"),
    ({"tasks": ["clipart", "mnistt"], "targets": {"mnist": "mnistt"}}, "embedded/mnistt: no such embedded pack"),
    ({"ood": ["digits9"]}, "ood.digits9: embedded/digits9: no such embedded pack; did you mean 'digits8'?"),
    ({"base": "embedded/bass"}, "base: embedded/bass: not embedded; did you mean 'base'?"),
    (
        {"backbone": {"family": "openclip", "model": "embedded/tiny-vit"}},
        "backbone.family: unknown backbone 'openclip'",
    ),
    ({"plugins": ["nothing.py"]}, "plugins: cannot import 'nothing.py'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_SPECS, ids=[m[:30] for _, m in BAD_SPECS])
def test_a_wrong_spec_is_status_2_and_starts_nothing(
    lines: Lines, run_folder: Path, changes: dict[str, Any], message: str
) -> None:
    spec = lines.spec(**changes)
    for status, output in (lines("validate", spec), lines.run(spec, run_folder)):
        assert status == 2 and message in output and "Traceback" not in output, output
    assert not run_folder.exists()


def test_the_errors_of_all_specs_are_reported_before_any_is_executed(lines: Lines, tmp_path: Path) -> None:
    good = lines.spec()
    (tmp_path / "a.yaml").write_text(good.read_text() + "limit: 5\n")
    status, output = lines("run", good, tmp_path / "a.yaml", tmp_path / "nothing.yaml", "--out", tmp_path / "runs")
    assert status == 2 and "a.yaml: limit: unknown key" in output and "nothing.yaml: cannot be read" in output
    assert not (tmp_path / "runs").exists()


def test_a_folder_without_a_run_is_status_2(lines: Lines, tmp_path: Path) -> None:
    status, output = lines("report", tmp_path)
    assert status == 2 and "no run here" in output


def test_a_process_prints_no_traceback(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from pipeline.cli.main import main; main()",
        "run",
        str(tmp_path / "nothing.yaml"),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    output = " ".join((found.stdout + found.stderr).split())
    assert found.returncode == 2 and "nothing.yaml: cannot be read" in output and "Traceback" not in output
