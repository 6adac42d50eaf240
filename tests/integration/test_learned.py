"""Methods that learn from data, from a spec to tables, exports and files for `lines merge`."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from small_run import TASKS, Lines, tables

from pipeline.messages import ShardScore
from pipeline.records.journal import read_history

SHORT = {"steps": 2, "batch_size": 5}
ARMS = {
    "fisher": {"merge": {"method": "fisher", "params": {"samples": 5}}},
    "regmean": {"merge": {"method": "regmean", "params": {"samples": 5}}},
    "RegMean++": {"merge": {"method": "regmean_pp", "params": {"samples": 5}}},
    "AdaMerging": {"merge": {"method": "adamerging", "params": {**SHORT, "granularity": "task"}}},
    "aTLAS": {"merge": {"method": "atlas", "params": SHORT}},
    "aTLAS of one": {"merge": {"method": "atlas", "params": SHORT}, "experts": ["mnist"]},
}
OVERRIDES = {"arms": ARMS, "controls": [], "limits": {"val": 12, "test": 12}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, experts: dict[str, Path], decoded: Path) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
        lines = Lines(folder, experts)
        status, output = lines.run(lines.spec(**OVERRIDES), folder / "run")
    assert status == 0, output
    return folder / "run"


def scores(run: Path) -> dict[str, list[ShardScore]]:
    """Method -> its scores."""
    found: dict[str, list[ShardScore]] = {}
    for answer in read_history(run).answers.values():
        assert isinstance(answer, ShardScore)
        found.setdefault(answer.request.recipe.method, []).append(answer)
    return found


def test_scores_tell_cost_and_coefficients_and_a_second_run_finds_what_the_first_left(
    run: Path, lines: Lines, tmp_path: Path
) -> None:
    rows = pq.read_table(run / "scores.parquet").to_pylist()
    assert {r["arm"] for r in rows if r["split"] == "test"} >= ARMS.keys()
    by_method = scores(run)
    for method in ("fisher", "regmean", "regmean_pp", "adamerging", "atlas"):
        notes = [s.note for s in by_method[method]]
        assert all(note["seconds"] > 0 and note["peak_bytes"] >= 0 for note in notes)
    row = by_method["adamerging"][0].note["coefficients"]
    assert list(row) == list(TASKS) and all(len(set(values)) == 1 and len(values) == 9 for values in row.values())
    assert {tuple(s.note["coefficients"]) for s in by_method["atlas"]} == {TASKS, ("mnist",)}
    assert not any(s.note for s in by_method["single"] + by_method["zero"])
    assert lines.run(lines.spec(**OVERRIDES), tmp_path / "again")[0] == 0
    assert tables(tmp_path / "again") == tables(run)
    again = scores(tmp_path / "again")
    assert [s.note for s in again["atlas"]] == [s.note for s in by_method["atlas"]], "read, not measured again"


def test_what_was_learned_is_exported_with_the_weights_that_were_scored(
    run: Path, lines: Lines, tmp_path: Path
) -> None:
    for i in (1, 2):
        status, output = lines("export", run, "--arm", "AdaMerging", "-o", tmp_path / f"exported-{i}")
        assert status == 0, output
    one, two = (load_file(tmp_path / f"exported-{i}" / "open_clip_model.safetensors") for i in (1, 2))
    assert all((one[name] == two[name]).all() for name in one)
    assert json.loads((tmp_path / "exported-1" / "recipe.json").read_text())["recipe"][0] == "adamerging"


@pytest.mark.parametrize(("kind", "method"), [("fisher", "fisher"), ("gram", "regmean")])
def test_statistics_are_written_under_the_names_that_lines_merge_takes(
    lines: Lines, tmp_path: Path, kind: str, method: str
) -> None:
    status, output = lines("statistics", lines.spec(), "--kind", kind, "--samples", 3, "--out", tmp_path / "out")
    assert status == 0, output
    files = [tmp_path / "out" / f"{name}.safetensors" for name in TASKS]
    names = load_file(lines.experts[TASKS[0]]).keys()
    for file in files:
        found = load_file(file)
        assert found.keys() <= names and "visual.transformer.resblocks.7.mlp.c_fc.weight" in found
    words = [w for name in TASKS for w in ("--expert", lines.experts[name])]
    words += [w for file in files for w in ("--statistics", file)]
    merged = tmp_path / "merged.safetensors"
    status, output = lines("merge", "--base", "embedded/base", "--method", method, "--alpha", 1, *words, "-o", merged)
    assert status == 0, output
    assert (load_file(merged)["visual.proj"] != load_file(lines.experts[TASKS[0]])["visual.proj"]).any()
    words[-1], words[-3] = words[-3], words[-1]
    status, output = lines(
        "merge", "--base", "embedded/base", "--method", method, *words, "-o", tmp_path / "no.safetensors"
    )
    assert status == 2 and "is of another expert than" in output


def test_a_kind_that_is_not_known_is_told(lines: Lines, tmp_path: Path) -> None:
    status, output = lines("statistics", lines.spec(), "--kind", "hessian", "--out", tmp_path / "out")
    assert status == 2 and "fisher" in output
