"""Proves that stopping, resuming and caching do not change tables; failures are records; test is scored once."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toy import IDENTITY, TASKS, ToyEvaluator, toy_spec

from pipeline.errors import LockedError
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.records.journal import Journal, read_history
from pipeline.report.page import build
from pipeline.run.progress import RunProgress
from pipeline.run.run import RunFolderError, rebuild, reopen, run
from pipeline.spec.run import RunSpec
from pipeline.storage.caches.scores import ScoreCache
from tasks.files.atomic import write_whole

TABLES = ("candidates.parquet", "scores.parquet", *(f"samples/{t}.parquet" for t in (*TASKS, "cats_ood")))


def finish(folder: Path, spec: RunSpec | None = None, cache: ScoreCache | None = None, **toy: object) -> ToyEvaluator:
    evaluator = ToyEvaluator(**toy)  # type: ignore[arg-type]
    run(make_plan(spec or toy_spec()), IDENTITY, folder, lambda: LocalPool(evaluator), cache)
    return evaluator


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in TABLES]


def test_every_arm_group_and_control_is_in_the_tables(run_folder: Path) -> None:
    finish(run_folder)
    rows = pq.read_table(run_folder / "candidates.parquet").to_pylist()
    arms = {r["arm"] for r in rows}
    assert arms == {
        "pre-trained",
        "fine-tuned",
        "LiNeS",
        "LiNeS, constant",
        "LiNeS, reversed",
        "LiNeS, equal norm",
        "LiNeS, uniform",
        "merge",
    }
    assert {r["group"] for r in rows if r["arm"] == "LiNeS"} == set(TASKS)
    assert sum(r["chosen"] for r in rows) == 1 + 6 * len(TASKS) + 1
    assert sum(r["arm"] == "merge" for r in rows) == 12


def test_the_chosen_candidate_has_the_largest_objective_as_the_paper_defines_it(run_folder: Path) -> None:
    finish(run_folder)
    rows = [r for r in pq.read_table(run_folder / "candidates.parquet").to_pylist() if r["arm"] == "LiNeS"]
    scores = pq.read_table(run_folder / "scores.parquet").to_pylist()
    for group in TASKS:
        mine = [r for r in rows if r["group"] == group]
        best = max(mine, key=lambda r: r["objectives"][0])
        assert next(r for r in mine if r["chosen"])["objectives"] == best["objectives"]
        val = [s for s in scores if (s["arm"], s["group"], s["number"]) == ("LiNeS", group, best["number"])]
        val = [s for s in val if s["split"] == "val"]
        target = [s["normalised"] for s in val if s["role"] == "target"]
        control = [s["normalised"] for s in val if s["role"] == "control"]
        assert len(target) == 1 and len(control) == 2
        assert best["objectives"][0] == pytest.approx(2 * target[0] + sum(control) / 2)


def test_test_is_scored_once_and_only_for_what_was_chosen(run_folder: Path) -> None:
    evaluator = finish(run_folder)
    asked = [r.key for r in evaluator.evaluated]
    assert len(asked) == len(set(asked))
    rows = pq.read_table(run_folder / "candidates.parquet").to_pylist()
    chosen = {r["recipe_id"] for r in rows if r["chosen"]}
    tested = [r for r in evaluator.evaluated if r.split == "test"]
    assert {r.recipe_id for r in tested} == chosen
    last_val = max(i for i, r in enumerate(evaluator.evaluated) if r.split == "val")
    assert all(r.split == "val" for r in evaluator.evaluated[:last_val])
    assert not [r for r in evaluator.evaluated if r.task == "cats_ood" and r.split == "val"]


def stop_after(count: int) -> Callable[[object], None]:
    def watch(progress: object) -> None:
        nonlocal count
        count -= 1
        if count < 0:
            raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize("steps", [0, 60])
def test_an_interrupted_run_has_a_report_of_what_it_scored(run_folder: Path, steps: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(make_plan(toy_spec()), IDENTITY, run_folder, lambda: LocalPool(ToyEvaluator()), None, stop_after(steps))
    rebuild(run_folder)
    assert all("This run is not complete" in page.read_text() for page in build(run_folder))


@pytest.mark.parametrize("steps", [1, 17, 60, 120, 200])
def test_a_resumed_run_equals_an_undisturbed_one(tmp_path: Path, steps: int) -> None:
    finish(tmp_path / "whole")
    first = ToyEvaluator()
    with pytest.raises(KeyboardInterrupt):
        run(make_plan(toy_spec()), IDENTITY, tmp_path / "cut", lambda: LocalPool(first), None, stop_after(steps))
    second = finish(tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert not {r.key for r in first.evaluated} & {r.key for r in second.evaluated}, "a shard was scored twice"


TPE = {"sampler": "tpe", "trials": 20, "in_flight": 2}
STEPS = {"method": "sum", "then": ["norm_match", {"step": "norm_match", "params": {"by": "whole"}}]}
SEARCHED = {"merge": {"merge": STEPS, "scaling": {"alpha": {"range": [0.0, 1.0]}}, "search": TPE}}


class OutOfMemory(ToyEvaluator):
    """Raises MemoryError for one shard."""

    def __init__(self, shard: tuple[str, str, str, int]) -> None:
        super().__init__()
        self.shard = shard

    def evaluate(self, request: EvalRequest) -> ShardScore:
        if request.key == self.shard:
            raise MemoryError("no memory")
        return super().evaluate(request)


def test_a_search_that_lost_a_shard_ends_like_an_undisturbed_one_however_often_it_is_stopped(tmp_path: Path) -> None:
    """Proposals made after the loss depend on it: they are dropped for good, not until the shard is scored."""
    spec = toy_spec(arms=SEARCHED, controls=[])
    finish(tmp_path / "whole", spec)
    rows = pq.read_table(tmp_path / "whole" / "candidates.parquet").to_pylist()
    candidate = next(r["recipe_id"] for r in rows if (r["arm"], r["number"]) == ("merge", 8))
    lost = next(k for k in read_history(tmp_path / "whole").answers if k[0] == candidate and k[2] == "val")
    run(make_plan(spec), IDENTITY, tmp_path / "cut", lambda: LocalPool(OutOfMemory(lost)), None)
    assert contents(tmp_path / "cut") != contents(tmp_path / "whole")

    def stop(progress: RunProgress) -> None:
        if any(answer.request.key == lost for answer in progress.latest):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make_plan(spec), IDENTITY, tmp_path / "cut", lambda: LocalPool(ToyEvaluator()), None, stop)
    finish(tmp_path / "cut", spec)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_report_written_while_the_run_ends_is_that_of_the_ended_run(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(make_plan(toy_spec()), IDENTITY, run_folder, lambda: LocalPool(ToyEvaluator()), None, stop_after(60))
    reopened = []

    def reopen_slowly(folder: Path) -> object:
        found = reopen(folder)
        if not reopened:
            finish(folder)
        reopened.append(found)
        return found

    monkeypatch.setattr("pipeline.run.run.reopen", reopen_slowly)
    rebuild(run_folder)
    assert contents(run_folder) == contents(tmp_path / "whole") and len(reopened) == 2
    assert json.loads((run_folder / "provenance.json").read_text())["complete"]


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: write_whole(tmp_path / "x", str(i % 4) * 50_000), range(400)))
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and len(set((tmp_path / "x").read_text())) == 1


def test_a_second_run_takes_every_score_from_the_cache(tmp_path: Path) -> None:
    first = finish(tmp_path / "a", cache=ScoreCache(tmp_path / "cache", IDENTITY))
    second = finish(tmp_path / "b", cache=ScoreCache(tmp_path / "cache", IDENTITY))
    assert first.evaluated and not second.evaluated
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("change", [{"numerics": "another device"}, {"fingerprint": "other experts"}])
def test_a_score_never_answers_for_other_checkpoints_or_numerics(tmp_path: Path, change: dict[str, str]) -> None:
    first = finish(tmp_path / "a", cache=ScoreCache(tmp_path / "cache", IDENTITY))
    cache = ScoreCache(tmp_path / "cache", replace(IDENTITY, **change))  # type: ignore[arg-type]
    assert all(cache.get(request) is None for request in first.evaluated)


def test_a_score_answers_for_the_same_samples_only(tmp_path: Path) -> None:
    """Another limit makes another last shard; renamed tasks and other data differ by content."""
    first = finish(tmp_path / "a", cache=ScoreCache(tmp_path / "cache", IDENTITY))
    cache = ScoreCache(tmp_path / "cache", IDENTITY)
    last = next(r for r in first.evaluated if r.stop == 90)
    assert cache.get(last) is not None and cache.get(replace(last, stop=89)) is None
    data = {**IDENTITY.tasks, last.task: ("other data", 90, 130)}
    assert ScoreCache(tmp_path / "cache", replace(IDENTITY, tasks=data)).get(last) is None


def test_a_task_that_raises_is_a_record_with_its_cause_and_the_run_continues(run_folder: Path) -> None:
    finish(run_folder, broken=("dogs", "test"))
    failures = [a for a in read_history(run_folder).answers.values() if isinstance(a, Failure)]
    assert failures and all(f.kind == "application" and "cannot be scored" in f.cause for f in failures)
    scores = pq.read_table(run_folder / "scores.parquet").to_pylist()
    tested = {(s["task"], s["split"]) for s in scores}
    assert ("dogs", "test") not in tested and {("cats", "test"), ("dogs", "val")} <= tested


def test_candidates_that_fail_on_validation_are_failed_and_not_chosen(run_folder: Path) -> None:
    finish(run_folder, broken=("dogs", "val"))
    rows = pq.read_table(run_folder / "candidates.parquet").to_pylist()
    searched = [r for r in rows if r["kind"] == "merge"]
    assert searched and all(r["state"] == "failed" and "dogs" in r["failure"] for r in searched)
    assert not any(r["chosen"] for r in searched) and all(r["objectives"] is None for r in searched)


def test_tables_can_be_rebuilt_from_the_journal_alone(run_folder: Path) -> None:
    finish(run_folder)
    before = contents(run_folder)
    for name in TABLES:
        (run_folder / name).unlink()
    rebuild(run_folder)
    assert contents(run_folder) == before


def test_another_spec_in_the_same_folder_is_refused_and_nothing_is_lost(run_folder: Path) -> None:
    finish(run_folder)
    before = contents(run_folder)
    with pytest.raises(RunFolderError, match=r"differs in spec\.seed"):
        finish(run_folder, toy_spec(seed=3))
    assert contents(run_folder) == before
    finish(run_folder, toy_spec(resources={"workers": 3}))


def test_two_runs_in_one_folder_at_once_are_refused(run_folder: Path) -> None:
    run_folder.mkdir()
    journal = Journal(run_folder)
    with pytest.raises(LockedError, match="another run is writing"):
        finish(run_folder)
    journal.close()
    finish(run_folder)
