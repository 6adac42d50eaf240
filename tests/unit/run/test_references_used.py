"""Proves that a run that only merges scores each expert once, and works with runs that scored them on all tasks."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from toy import IDENTITY, TASKS, ToyEvaluator, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.records.journal import Journal
from pipeline.regress.baseline import read_baseline, read_place, write_baseline
from pipeline.regress.compare import compare
from pipeline.regress.history import make_history
from pipeline.regress.pairs import Allowed
from pipeline.report.page import build
from pipeline.run.forecast import forecast
from pipeline.run.progress import RunProgress
from pipeline.run.run import rebuild, reopen, run
from pipeline.spec.thresholds import Regress

SPEC = toy_spec(
    arms={"sum": {"merge": "sum", "scaling": {"alpha": {"grid": [0.2, 0.4, 0.6]}}, "select": {"maximise": "mean"}}},
    controls=[],
)
TABLES = ("candidates.parquet", "scores.parquet", "provenance.json")


def scored(folder: Path, evaluator: ToyEvaluator | None = None, stop: int = 0) -> list[tuple[str, str]]:
    """Run to the end, or to a step; return (task, split) of the shards that this took, other candidates' included."""
    evaluator = evaluator or ToyEvaluator()

    def watch(progress: RunProgress) -> None:
        if stop and progress.shards_evaluated >= stop:
            raise KeyboardInterrupt

    run(make_plan(SPEC), IDENTITY, folder, lambda: LocalPool(evaluator), None, watch)
    return [(request.task, request.split) for request in evaluator.evaluated]


def begun_by_an_older_version(folder: Path) -> Path:
    """A run folder whose journal has a header as older versions wrote it."""
    folder.mkdir()
    journal = Journal(folder)
    journal.header({"spec": SPEC.model_dump(mode="json"), "identity": IDENTITY.to_json()})
    journal.close()
    return folder


def rows(folder: Path, arm: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return (expert, task, split) -> score."""
    found = pq.read_table(folder / "scores.parquet").to_pylist()
    return {(r["group"], r["task"], r["split"]): r for r in found if r["arm"] == arm and r["number"] == 0}


def test_each_expert_is_scored_on_its_own_task_and_the_choice_stays(tmp_path: Path) -> None:
    scored(tmp_path / "new")
    scored(begun_by_an_older_version(tmp_path / "old"))
    own = rows(tmp_path / "new", "fine-tuned")
    assert set(own) == {(task, task, split) for task in TASKS for split in ("val", "test")}
    assert all(row["normalised"] == 1 for row in own.values())
    every = rows(tmp_path / "old", "fine-tuned")
    assert len(every) == 3 * (2 * 3 + 1) and {key: every[key] for key in own} == own
    new, old = (pq.read_table(tmp_path / name / "candidates.parquet").to_pylist() for name in ("new", "old"))
    assert new == old
    for arm in ("sum", "pre-trained"):
        assert rows(tmp_path / "new", arm) == rows(tmp_path / "old", arm)


def test_the_forecast_is_what_is_evaluated(tmp_path: Path) -> None:
    evaluated = scored(tmp_path / "run")
    plan, ledger, _ = reopen(tmp_path / "run")
    assert forecast(plan, ledger).shards == len(evaluated) == len(set(ledger.answers))


@pytest.mark.parametrize("older", [False, True], ids=["this version", "an older one"])
def test_a_stopped_run_is_resumed_as_it_began(tmp_path: Path, older: bool) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut) if older else ():
        begun_by_an_older_version(folder)
    evaluated = scored(whole)
    evaluator = ToyEvaluator()
    with pytest.raises(KeyboardInterrupt):
        scored(cut, evaluator, stop=len(evaluated) // 4)
    assert 0 < len(evaluator.evaluated) < len(evaluated)
    assert sorted(scored(cut, evaluator)) == sorted(evaluated)
    for name in TABLES[:2]:
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    before = [(cut / name).read_bytes() for name in TABLES]
    rebuild(cut)
    assert [(cut / name).read_bytes() for name in TABLES] == before


def test_the_report_says_why_experts_have_no_accuracy_on_other_tasks(tmp_path: Path) -> None:
    scored(tmp_path / "new")
    scored(begun_by_an_older_version(tmp_path / "old"))
    new, old = (build(tmp_path / name)[1].read_text(encoding="utf-8") for name in ("new", "old"))
    assert "One expert edited at a time: target accuracy" in new and "each task as a control" not in new
    assert "Control tasks are not scored, as no arm edits these experts" in new
    assert "One expert edited at a time: target and control accuracy" in old and "each task as a control" in old
    assert "not scored" not in old and "fine-tuned (one model a task)" in new


def test_a_run_and_a_baseline_of_an_older_version_are_compared_on_what_both_need(tmp_path: Path) -> None:
    scored(begun_by_an_older_version(tmp_path / "old"))  # first: a history is in the order of starts
    scored(tmp_path / "new")
    write_baseline(read_place(str(tmp_path / "old")), tmp_path / "old.parquet")
    write_baseline(read_place(str(tmp_path / "new")), tmp_path / "new.parquet")
    new, old = (read_baseline(tmp_path / f"{name}.parquet") for name in ("new", "old"))
    for now, before in ((new, old), (old, new), (new, new)):
        found = compare(now, before, Regress(), Allowed())
        assert {c.verdict for c in found.comparisons} == {"equal"} and not found.left_out
        keys = {(c.arm, c.role, c.task) for c in found.comparisons}
        assert {key for key in keys if key[0] == "fine-tuned"} == {("fine-tuned", "target", t) for t in TASKS}
    assert {c.role for c in compare(old, old, Regress(), Allowed()).comparisons} == {"target", "control", "ood"}
    (line,) = compare(new, old, Regress(), Allowed()).changes
    assert line == "fine-tuned: all on all tasks → cats on cats; dogs on dogs; cars on cars"
    assert make_history([old, new], "target", ()).changed[1] == [line]


def test_an_expert_that_failed_is_still_missed(tmp_path: Path) -> None:
    """What a run does not need is left out of a comparison; what it needed and lost is not."""
    scored(tmp_path / "good")
    scored(begun_by_an_older_version(tmp_path / "old"))
    scored(tmp_path / "bad", ToyEvaluator(broken=("cats", "test")))
    bad = read_place(str(tmp_path / "bad"))
    for before in ("good", "old"):
        with pytest.raises(ValueError, match="arm fine-tuned, expert cats, task cats as target: not in the run"):
            compare(bad, read_place(str(tmp_path / before)), Regress(), Allowed())
