"""Proves that functions of whole rows score completions, and that accuracies mix with rewards; with clear errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_run import command
from small_soup import REWARDS, write_soup, write_soup_spec

CODE = (
    REWARDS
    + '''

def solved(sources, completions, rows):
    """Exact match: whether the completion holds the row's letter."""
    return [row["answers"]["letter"] in text for text, row in zip(completions, rows, strict=True)]


def overlap(sources, completions, rows):
    """Graded: the share of the reference's letters in the completion."""
    return [len({*text} & {*row["reference"]}) / len({*row["reference"]}) for text, row in zip(completions, rows)]


def double(sources, completions, rows):
    return [2.0 * len(text) for text in completions]


def wrong_column(sources, completions, rows):
    return [row["answer"] for row in rows]
'''
)
ACCURACY = {"source": "rewards.py:solved", "metric": "accuracy", "options": {"columns": ["answers"]}}
GRADED = {"source": "rewards.py:overlap", "metric": "accuracy"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_soup(tmp_path_factory.mktemp("rows"))
    (folder / "rewards.py").write_text(CODE)
    for split in ("train", "val", "test"):
        path = folder / "prompts" / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        letters = "aeiost"
        path.write_text(
            "".join(json.dumps(r | {"answers": {"letter": letters[i % 6]}}) + "\n" for i, r in enumerate(rows))
        )
    return folder


def run(files: Path, name: str, **changes: Any) -> Path:
    spec = write_soup_spec(files, name=name, **changes)
    status, output = command("run", spec, "--out", files / name, "--no-cache")
    assert status == 0, output
    return files / name


@pytest.fixture(scope="module")
def mixed(files: Path) -> Path:
    return run(files, "mixed", tasks={"brief": "rewards.py:brevity", "open": GRADED})


@pytest.fixture(scope="module")
def accuracies(files: Path) -> Path:
    return run(files, "accuracies", tasks={"brief": ACCURACY, "open": GRADED}, controls=[])


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return found


def expected(files: Path, folder: Path, task: str) -> dict[tuple[str, str], list[float]]:
    """Score the completions of a run by hand: (recipe, split) -> values in the order of the prompts."""
    rows = {
        row["source"]: row
        for split in ("val", "test")
        for row in map(json.loads, (files / "prompts" / f"{split}.jsonl").read_text().splitlines())
    }
    found: dict[tuple[str, str], list[float]] = {}
    by_prompt = {(p["split"], p["index"]): p["source"] for p in table(folder, "prompts")}
    for c in sorted(table(folder, "completions"), key=lambda c: c["index"]):
        row, text = rows[by_prompt[c["split"], c["index"]]], c["completion"]
        letters = {*row["reference"]}
        value = {
            "solved": float(row["answers"]["letter"] in text),
            "overlap": len({*text} & letters) / len(letters),
            "brevity": -sum(map(ord, text)) / 100,
        }[task]
        found.setdefault((c["recipe_id"], c["split"]), []).append(value)
    return found


@pytest.mark.parametrize(
    ("fixture", "task", "function", "metric"),
    [
        ("mixed", "open", "overlap", "accuracy"),
        ("mixed", "brief", "brevity", "reward"),
        ("accuracies", "brief", "solved", "accuracy"),
        ("accuracies", "open", "overlap", "accuracy"),
    ],
)
def test_values_are_those_of_the_rows(
    files: Path, request: pytest.FixtureRequest, fixture: str, task: str, function: str, metric: str
) -> None:
    folder: Path = request.getfixturevalue(fixture)
    values = expected(files, folder, function)
    scores = [s for s in table(folder, "scores") if s["task"] == task]
    assert {s["metric"] for s in scores} == {metric}
    assert len({round(s["value"], 6) for s in scores}) > 1
    for score in scores:
        own = values[score["recipe_id"], score["split"]]
        assert score["value"] == pytest.approx(sum(own) / len(own), rel=1e-5)


def test_accuracies_are_measured_by_their_expert_and_rewards_by_their_spread(mixed: Path, files: Path) -> None:
    scores = {(s["arm"], s["group"], s["number"], s["task"]): s for s in table(mixed, "scores") if s["split"] == "val"}
    base = {task: scores["pre-trained", "", 0, task]["value"] for task in ("brief", "open")}
    base_id = scores["pre-trained", "", 0, "brief"]["recipe_id"]
    values = expected(files, mixed, "brevity")[base_id, "val"]
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    own = scores["fine-tuned", "open", 0, "open"]["value"]
    assert own > 0
    for row in table(mixed, "candidates"):
        if row["arm"] not in ("soup", "LiNeS"):
            continue
        found = {t: scores[row["arm"], "", row["number"], t] for t in base}
        gains = (found["brief"]["value"] - base["brief"]) / spread, (found["open"]["value"] - base["open"]) / own
        assert row["objectives"] == pytest.approx([sum(gains) / 2], rel=1e-4, abs=1e-6)
        assert found["open"]["normalised"] == pytest.approx(found["open"]["value"] / own)


def test_a_run_of_accuracies_has_the_objectives_and_the_report_of_other_runs(accuracies: Path) -> None:
    provenance = json.loads((accuracies / "provenance.json").read_text())
    assert provenance["objectives"]["soup"] == ["2 * target + control"]
    report = (accuracies / "report.md").read_text()
    assert "Experts in one model: mean accuracy over tasks" in report


def test_a_mixed_report_shows_accuracies_as_per_cent(mixed: Path) -> None:
    report = (mixed / "report.md").read_text()
    header = next(line for line in report.splitlines() if "point" in line and "recipe id" in line)
    assert "open (%)" in header and "brief (%)" not in header


def test_other_columns_are_part_of_a_tasks_identity(files: Path, tmp_path: Path) -> None:
    def fingerprints(folder: Path) -> list[str]:
        from pipeline.spec.load import load_spec
        from pipeline.workers.completion_worker import CompletionWorker

        tasks = {"brief": "rewards.py:brevity", "open": ACCURACY}
        spec = load_spec(write_soup_spec(folder, name="identity", tasks=tasks))
        return [CompletionWorker("w", spec).info().tasks[name][0] for name in ("brief", "open")]

    copy = Path(shutil.copytree(files, tmp_path / "copy"))
    path = copy / "prompts" / "val.jsonl"
    path.write_text(path.read_text().replace('{"letter": "a"}', '{"letter": "b"}'))
    (brief, solved), (same, other) = fingerprints(files), fingerprints(copy)
    assert brief == same and solved != other


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"source": "rewards.py:double", "metric": "accuracy"},
            "reward 'ROOT/rewards.py:double': must give accuracies in [0, 1], as its metric is accuracy, got",
        ),
        (
            {"source": "rewards.py:wrong_column"},
            "wrong_column: failed: KeyError: 'answer'; the rows have the columns source, reference, answers",
        ),
        (
            {"source": "rewards.py:vowels", "options": {"columns": ["answers"]}},
            "tasks.open: options.columns: vowels takes no rows: give it a parameter rows, as in def vowels(sources, "
            "completions, rows)",
        ),
        (
            {"source": "rewards.py:solved", "options": {"columns": ["answer"]}},
            "tasks.open: options.columns: a row has no answer: 'This package",
        ),
        (
            {"source": "rewards.py:solved", "options": {"columns": "answers"}},
            "columns: must be a list of names",
        ),
        ({"source": "rewards.py:solved", "metric": "f1"}, "tasks.open.metric: must be"),
    ],
)
def test_wrong_functions_and_rows_are_refused_before_the_run(files: Path, task: dict[str, Any], message: str) -> None:
    spec = write_soup_spec(files, name="wrong", tasks={"brief": "rewards.py:brevity", "open": task})
    status, output = command("validate", spec)
    assert status == 2
    assert message.replace("ROOT", str(files)) in output


def test_a_journal_without_newer_fields_of_the_spec_is_resumed(files: Path, mixed: Path) -> None:
    journal = mixed / "journal.jsonl"
    first, *rest = journal.read_text().splitlines()
    header = json.loads(first)
    del header["checksum"]
    del header["spec"]["tasks"]["brief"]["metric"]
    del header["spec"]["arms"]["soup"]["scaling"]["outside"]
    journal.write_text("\n".join([json.dumps(header, separators=(",", ":")), *rest[:-1]]) + "\n")
    status, output = command("run", files / "mixed.yaml", "--out", mixed, "--no-cache")
    assert status == 0, output
