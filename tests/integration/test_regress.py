"""Proves on real runs that a damaged model is caught, an unchanged one passes, and bad input is reported."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import TASKS, Lines

ARMS = {"sum": {"merge": "sum"}}


def small(lines: Lines, **changes: Any) -> Path:
    return lines.spec(arms=ARMS, controls=[], limits={"val": 15, "test": 60}, shard_size=60, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, experts: dict[str, Path], decoded: Path) -> Path:
    """A folder with a run, the same run again, and a run with a damaged mnist expert."""
    folder = tmp_path_factory.mktemp("regress")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
        good = {name: f"embedded/{name}" for name in TASKS}
        spoilt = load_file(experts["mnist"])
        spoilt = {k: torch.zeros_like(v) if "ln_post" in k else v for k, v in spoilt.items()}
        save_file(spoilt, folder / "spoilt.safetensors")
        bad = {**good, "mnist": str(folder / "spoilt.safetensors")}
        for name, used in (("good", good), ("again", good), ("damaged", bad)):
            lines = Lines(folder, experts)
            status, output = lines.run(small(lines, experts=used), folder / name)
            assert status == 0, output
        status, output = lines("baseline", "set", folder / "good", folder / "baseline.parquet")
        assert status == 0 and (folder / "baseline.parquet").stat().st_size < 20_000, output
    return folder


@pytest.mark.parametrize("baseline", ["good", "baseline.parquet"])
def test_an_unchanged_run_passes(lines: Lines, made: Path, baseline: str) -> None:
    status, output = lines("regress", made / "again", "--baseline", made / baseline)
    assert status == 0 and "equal" in output and "regressed:" not in output


def test_a_damaged_model_is_caught(lines: Lines, made: Path, tmp_path: Path) -> None:
    files = ("--markdown", tmp_path / "out" / "r.md", "--junit", tmp_path / "out" / "r.xml")
    status, output = lines("regress", made / "damaged", "--baseline", made / "baseline.parquet", *files)
    assert status == 1 and "regressed: fine-tuned, mnist" in output and "changed since: checkpoint mnist" in output
    assert "| regressed |" in (tmp_path / "out" / "r.md").read_text()
    suite = ET.parse(tmp_path / "out" / "r.xml").getroot()[0]
    failed = {(c.get("classname"), c.get("name")) for c in suite if c.find("failure") is not None}
    assert ("fine-tuned", "mnist") in failed and int(suite.attrib["failures"]) == len(failed)
    assert len(suite) == int(suite.attrib["tests"]) and suite.find("testcase/failure").attrib["message"]


def test_markdown_is_printed_on_request(lines: Lines, made: Path) -> None:
    status, output = lines("regress", made / "again", "--baseline", made / "good", "--markdown", "-")
    assert status == 0 and output.startswith("# small against its baseline") and "|---|" in output


def test_thresholds_of_another_spec_are_used(lines: Lines, made: Path) -> None:
    floor = {"arms": {"sum": {"tasks": {"mnist": {"minimum": 1.01}}}}}
    spec = small(lines, experts={n: f"embedded/{n}" for n in TASKS}, regress=floor)
    status, output = lines("regress", made / "again", "--baseline", made / "good", "--spec", spec)
    assert status == 1 and "below the minimum 101.0" in output and "pre-trained" not in output
    loose = small(lines, experts={n: f"embedded/{n}" for n in TASKS}, regress={"tolerance": 1})
    assert lines("regress", made / "damaged", "--baseline", made / "good", "--spec", loose)[0] == 0


def test_thresholds_may_change_after_the_run(lines: Lines, made: Path) -> None:
    """They are not part of its result: the same command writes them into the run, and scores nothing again."""
    before = (made / "again" / "scores.parquet").read_bytes()
    spec = small(lines, experts={n: f"embedded/{n}" for n in TASKS}, regress={"minimum": 1.01, "arms": ["sum"]})
    assert lines.run(spec, made / "again")[0] == 0
    assert lines("regress", made / "again", "--baseline", made / "good")[0] == 1
    plain = small(lines, experts={n: f"embedded/{n}" for n in TASKS})
    assert lines.run(plain, made / "again")[0] == 0
    assert lines("regress", made / "again", "--baseline", made / "good")[0] == 0
    assert (made / "again" / "scores.parquet").read_bytes() == before


def test_unknown_names_in_thresholds_are_refused_when_the_spec_is_read(lines: Lines) -> None:
    for regress, message in (
        ({"arms": ["summ"]}, "regress.arms: unknown arm 'summ'"),
        ({"tasks": {"mnits": {}}}, "regress.tasks: unknown task 'mnits'"),
        ({"tolerance": -1}, "regress.tolerance"),
    ):
        status, output = lines("validate", small(lines, regress=regress))
        assert status == 2 and message in output


def test_the_history_shows_what_changed(lines: Lines, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "h" / "history.html"
    runs = (made / "damaged", made / "baseline.parquet", made / "again")
    status, output = lines("history", *runs, "--metric", "mnist", "--out", out)
    assert status == 0 and "checkpoint mnist" in output and "█" in output
    page = out.read_text()
    assert "Plotly" in page and "http-equiv" in page and "checkpoint mnist" in out.with_suffix(".md").read_text()


def test_a_baseline_is_shown_and_overwritten_only_by_force(lines: Lines, made: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "b.parquet"
    assert lines("baseline", "set", made / "good", file)[0] == 0
    assert lines("baseline", "set", made / "good", file)[0] == 2
    assert lines("baseline", "set", made / "damaged", file, "--force")[0] == 0
    status, output = lines("baseline", "show", file)
    assert status == 0 and "fine-tuned" in output and "checkpoints: base" in output
    assert lines("baseline", "set", made / "good", tmp_path / "b.txt")[0] == 2


def changed(path: Path, out: Path, **metadata: bytes) -> Path:
    table = pq.read_table(path)
    new = {**table.schema.metadata, **{f"lines_sweep.{k}".encode(): v for k, v in metadata.items()}}
    pq.write_table(table.replace_schema_metadata(new), out)
    return out


def test_files_that_are_not_baselines_are_refused(lines: Lines, made: Path, tmp_path: Path) -> None:
    good = made / "baseline.parquet"
    (tmp_path / "torn.parquet").write_bytes(good.read_bytes()[:-200])
    others = {
        tmp_path / "torn.parquet": "damaged, or not a Parquet file",
        changed(good, tmp_path / "old.parquet", baseline_version=b"0"): "baseline version 0, this program reads 1",
        changed(good, tmp_path / "about.parquet", about=b"{"): "damaged",
        made / "good" / "scores.parquet": "it is another Parquet file",
        tmp_path / "none.parquet": "`lines baseline set RUN",
        tmp_path / "nowhere": "there is no such run",
    }
    for file, message in others.items():
        junit = tmp_path / "error.xml"
        status, output = lines("regress", made / "again", "--baseline", file, "--junit", junit)
        assert status == 2 and message in output, output
        assert ET.parse(junit).getroot().attrib["errors"] == "1"


def test_different_data_sizes_arms_and_tasks_are_named(lines: Lines, made: Path, tmp_path: Path) -> None:
    experts = {n: f"embedded/{n}" for n in TASKS}
    more = {"sum": {"merge": "sum"}, "half": {"merge": "sum", "scaling": {"alpha": 0.5}}}
    spec = lines.spec(arms=more, controls=[], limits={"val": 15, "test": 60}, shard_size=60, experts=experts)
    assert lines.run(spec, tmp_path / "more")[0] == 0
    words = ("regress", tmp_path / "more", "--baseline", made / "good")
    status, output = lines(*words)
    assert status == 2 and "arm half: not in the baseline" in output and "--only-common" in output
    status, output = lines(*words, "--only-common")
    assert status == 0 and "not compared: arm half" in output
    templates = {
        "mnist": {"source": "embedded/mnist", "options": {"templates": ["a {}"]}},
        "clipart": "embedded/clipart",
    }
    assert lines.run(small(lines, experts=experts, tasks=templates), tmp_path / "other")[0] == 0
    words = ("regress", tmp_path / "other", "--baseline", made / "good")
    status, output = lines(*words)
    assert status == 2 and "task mnist: other data: fingerprint" in output and "task clipart" not in output
    assert lines(*words, "--same-samples")[0] in (0, 1)
    status, output = lines(*words, "--only-common")
    assert status == 0 and "not compared: task mnist" in output
    fewer = lines.spec(arms=ARMS, controls=[], limits={"val": 15, "test": 30}, shard_size=60, experts=experts)
    assert lines.run(fewer, tmp_path / "fewer")[0] == 0
    status, output = lines("regress", tmp_path / "fewer", "--baseline", made / "good", "--only-common")
    assert status == 2 and "nothing in common" in output and "30 test samples, 60 in the baseline" in output


def test_an_unfinished_run_is_refused(lines: Lines, made: Path, tmp_path: Path) -> None:
    journal = (made / "good" / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "journal.jsonl").write_text("".join(journal[:-1]))
    assert lines("report", tmp_path / "half")[0] == 0
    for words in (("regress", tmp_path / "half", "--baseline", made / "good"), ("baseline", "set", tmp_path / "half")):
        status, output = lines(*words)
        assert status == 2 and "is not finished" in output
