"""Proves that stopped candidates could not win: each choice is that of a search in full, in any order of answers."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from toy import IDENTITY, TASKS, ToyEvaluator, toy_spec

from pipeline.messages import EvalRequest, Failure, Identity, ShardScore, WorkerInfo
from pipeline.plan.plan import make_plan
from pipeline.plan.stops import why_in_full
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.records.journal import read_history
from pipeline.records.tables import STOPPED, read
from pipeline.run.run import rebuild, run
from pipeline.spec.run import RunSpec
from pipeline.storage.caches.scores import ScoreCache

ANY_SAMPLES = replace(IDENTITY, together=dict.fromkeys(TASKS, 1))
MANY = replace(ANY_SAMPLES, tasks={name: (data, 900, 130) for name, (data, _, _) in IDENTITY.tasks.items()})
GRID = {"grid": [0.0, 0.2, "...", 1.0]}
MERGE = {"merge": "sum", "scaling": {"function": "linear", "alpha": GRID, "beta": GRID}}
TABLES = ("candidates.parquet", "scores.parquet", "stopped.parquet", *(f"samples/{task}.parquet" for task in TASKS))


def spec(
    stop: Any = "exact",
    objective: Any = "2 * target + control",
    shown: bool = False,
    grid: Any = GRID,
    **search: Any,
) -> RunSpec:
    scaling = {"function": "linear", "alpha": grid, "beta": grid}
    arms = {"merge": {"merge": "sum", "scaling": scaling, "search": {"stop": stop, **search}}}
    heat_map = {"kind": "heatmap", "x": "alpha", "y": "beta", "arms": ["merge"], "metric": "target"}
    exhibits = {"map": heat_map} if shown else {}
    return toy_spec(arms=arms, controls=[], select={"maximise": objective}, exhibits=exhibits)


class Evaluator(ToyEvaluator):
    """Has loaded what the identity says."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._identity = identity

    def info(self) -> WorkerInfo:
        return self._identity.worker(self.name, "none")


class Shuffled(LocalPool[EvalRequest, ShardScore]):
    """Answers in a random order."""

    def __init__(self, seed: int, evaluator: ToyEvaluator) -> None:
        super().__init__(evaluator)
        self._waiting: list[EvalRequest] = []
        self._random, self._own = random.Random(seed), evaluator

    def submit(self, requests: Any) -> None:
        self._waiting += requests

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        if not self._waiting:
            return []
        return [self._own.evaluate(self._waiting.pop(self._random.randrange(len(self._waiting))))]


def finish(
    folder: Path,
    spec: RunSpec,
    cache: ScoreCache | None = None,
    seed: int | None = None,
    identity: Identity = ANY_SAMPLES,
) -> ToyEvaluator:
    evaluator = Evaluator(identity)
    pool = LocalPool(evaluator) if seed is None else Shuffled(seed, evaluator)
    run(make_plan(spec), identity, folder, lambda: pool, cache)
    return evaluator


def rows(folder: Path, arm: str = "merge") -> list[dict[str, Any]]:
    return [row for row in pq.read_table(folder / "candidates.parquet").to_pylist() if row["arm"] == arm]


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in TABLES]


def samples(evaluator: ToyEvaluator) -> int:
    return sum(len(r.rows) or r.stop - r.start for r in evaluator.evaluated if r.split != "test")


@pytest.mark.parametrize("objective", ["2 * target + control", "worst", ["target", 'task["cats"]'], "min(target, 0.9)"])
def test_the_choice_and_the_front_are_those_of_a_search_in_full(tmp_path: Path, objective: Any) -> None:
    stopped = finish(tmp_path / "stops", spec("exact", objective))
    full = finish(tmp_path / "full", spec("none", objective))
    ours, theirs = rows(tmp_path / "stops"), rows(tmp_path / "full")
    assert {r["state"] for r in ours} == {"complete", "stopped"} and {r["state"] for r in theirs} == {"complete"}
    assert samples(stopped) < 0.9 * samples(full)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine["point"], mine["chosen"], mine["on_front"]) == (other["point"], other["chosen"], other["on_front"])
        assert mine["objectives"] in (None, other["objectives"])
    assert not (tmp_path / "full" / "stopped.parquet").exists()


def test_no_candidate_exceeds_its_bounds_and_its_incumbent_is_better_than_they_are(tmp_path: Path) -> None:
    finish(tmp_path / "stops", spec())
    finish(tmp_path / "full", spec("none"))
    truth = {r["number"]: r["objectives"][0] for r in rows(tmp_path / "full")}
    found = read(tmp_path / "stops" / "stopped.parquet", STOPPED).to_pylist()
    assert len(found) > 12
    for row in found:
        assert truth[row["number"]] <= row["bounds"][0] < truth[row["incumbent"]]
        assert row["estimate"][0] <= row["bounds"][0] and 0 < row["seen"] < row["samples"] == 3 * 90
        assert row["rule"] == "exact"


def test_tables_do_not_depend_on_the_order_of_answers(tmp_path: Path) -> None:
    finish(tmp_path / "in order", spec())
    expected = contents(tmp_path / "in order")
    for seed in range(3):
        finish(tmp_path / str(seed), spec(), seed=seed)
        assert contents(tmp_path / str(seed)) == expected


@pytest.mark.parametrize("search", [{}, {"sampler": "tpe", "trials": 30, "in_flight": 3}])
def test_a_run_that_is_killed_anywhere_ends_with_the_same_tables(tmp_path: Path, search: dict[str, Any]) -> None:
    finish(tmp_path / "whole", spec(**search))
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in (3, len(lines) // 2, len(lines) - 40, len(lines) - 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
        finish(folder, spec(**search))
        assert contents(folder) == contents(tmp_path / "whole")
    rebuild(tmp_path / "whole")
    assert contents(tmp_path / "3") == contents(tmp_path / "whole")


def test_a_second_run_takes_its_stages_from_the_score_cache(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "cache", ANY_SAMPLES)
    finish(tmp_path / "first", spec(), cache)
    again = finish(tmp_path / "second", spec(), ScoreCache(tmp_path / "cache", ANY_SAMPLES))
    assert not again.evaluated and contents(tmp_path / "second") == contents(tmp_path / "first")


def test_samples_of_finished_candidates_are_in_the_data_sets_order(tmp_path: Path) -> None:
    finish(tmp_path / "stops", spec())
    finish(tmp_path / "full", spec("none"))
    for task in TASKS:
        ours, theirs = (
            {(r["recipe_id"], r["split"]): r["outcomes"] for r in pq.read_table(path).to_pylist()}
            for path in (tmp_path / name / "samples" / f"{task}.parquet" for name in ("stops", "full"))
        )
        assert ours.items() <= theirs.items() and len(ours) > 8


def test_the_journal_says_what_was_stopped(tmp_path: Path) -> None:
    finish(tmp_path, spec())
    stopped = [line for line in (tmp_path / "journal.jsonl").read_text().splitlines() if '"record":"stopped"' in line]
    assert len(stopped) == len(read(tmp_path / "stopped.parquet", STOPPED)) and '"incumbent":' in stopped[0]
    assert read_history(tmp_path).finished


def test_a_race_stops_far_more_and_its_choice_is_about_as_good(tmp_path: Path) -> None:
    race, exact, full = (
        finish(tmp_path / name, spec(stop), identity=MANY)
        for name, stop in (("race", {"race": 0.05}), ("exact", "exact"), ("full", "none"))
    )
    assert samples(race) < 0.9 * samples(exact) and samples(exact) < samples(full)
    found = read(tmp_path / "race" / "stopped.parquet", STOPPED).to_pylist()
    assert {row["rule"] for row in found} == {"race", "exact"}
    truth = {r["number"]: r["objectives"][0] for r in rows(tmp_path / "full")}
    chosen = next(r["number"] for r in rows(tmp_path / "race") if r["chosen"])
    assert truth[chosen] == max(truth.values())


def test_a_run_of_an_earlier_version_goes_on_in_full(tmp_path: Path) -> None:
    run(make_plan(spec()), IDENTITY, tmp_path, lambda: LocalPool(ToyEvaluator()), None)
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:60]))
    finish(tmp_path, spec())
    assert {r["state"] for r in rows(tmp_path)} == {"complete"} and len(rows(tmp_path)) == 36


def reasons() -> Iterator[tuple[str, dict[str, Any], str]]:
    edit = {"edit": "each_expert", "scaling": MERGE["scaling"]}
    curve = {"exhibits": {"map": {"kind": "heatmap", "x": "alpha", "y": "beta", "arms": ["arm"], "metric": "target"}}}
    several = {"select": {"maximise": ["target", "worst"]}}
    yield "none", {"arms": {"arm": {**MERGE, "search": {"stop": "none"}}}}, "stop is none"
    yield "one", {"arms": {"arm": {"merge": "sum"}}}, "one candidate"
    yield "minus", {"arms": {"arm": MERGE}, "select": {"maximise": "target - control"}}, "subtracts a metric"
    yield "divided", {"arms": {"arm": MERGE}, "select": {"maximise": "target / (1 + worst)"}}, "divides by a metric"
    yield "every", {"arms": {"arm": {**MERGE, "test": "every"}}}, "test is every"
    yield "heat map", {"arms": {"arm": MERGE}, **curve}, "an exhibit shows every candidate"
    yield "front", {"arms": {"arm": MERGE}, **several}, "fronts of all candidates"
    yield "edit", {"arms": {"arm": edit}}, "trade-off"
    yield "curve", {"arms": {"arm": {"merge": "sum", "scaling": {"alpha": GRID}}}}, "a curve of all"
    tpe = {"sampler": "tpe", "trials": 20}
    yield "adaptive", {"arms": {"arm": {**MERGE, "search": tpe}}}, "tpe proposes by the values"
    race = {"arms": {"arm": {**MERGE, "search": {"stop": {"race": 0.1}}}}, **several}
    yield "race of fronts", race, "a race needs one objective"


@pytest.mark.parametrize(("_", "changes", "reason"), reasons())
def test_elsewhere_every_candidate_is_scored_in_full_and_it_says_why(_: str, changes: Any, reason: str) -> None:
    changed = toy_spec(**{"controls": [], **changes})
    plan = make_plan(changed)
    assert reason in why_in_full(next(g for g in plan.searched if g.arm == "arm"), plan)


def test_by_default_a_merge_over_two_dimensions_stops() -> None:
    plan = make_plan(spec("auto"))
    assert why_in_full(plan.searched[0], plan) == ""


def test_outcomes_between_0_and_1_are_scored_in_full(tmp_path: Path) -> None:
    class Fractions(ToyEvaluator):
        def evaluate(self, request: EvalRequest) -> ShardScore:
            score = super().evaluate(request)
            return replace(score, outcomes=score.outcomes.astype(np.float32))

    run(make_plan(spec()), ANY_SAMPLES, tmp_path, lambda: LocalPool(Fractions()), None)
    assert {r["state"] for r in rows(tmp_path)} == {"complete"}


def test_an_exhibit_that_was_shown_keeps_its_candidates(tmp_path: Path) -> None:
    finish(tmp_path, spec(shown=True))
    assert {r["state"] for r in rows(tmp_path)} == {"complete"} and not (tmp_path / "stopped.parquet").exists()
    before = (tmp_path / "candidates.parquet").read_bytes()
    assert not finish(tmp_path, spec()).evaluated and (tmp_path / "candidates.parquet").read_bytes() == before
    rebuild(tmp_path)
    assert (tmp_path / "candidates.parquet").read_bytes() == before
    assert not finish(tmp_path, spec(shown=True)).evaluated


def test_an_exhibit_that_is_added_later_has_every_candidate(tmp_path: Path) -> None:
    finish(tmp_path, spec())
    assert (tmp_path / "stopped.parquet").exists()
    finish(tmp_path, spec(shown=True))
    assert {r["state"] for r in rows(tmp_path)} == {"complete"} and not (tmp_path / "stopped.parquet").exists()


def test_a_finished_run_that_is_repeated_writes_its_stops_once(tmp_path: Path) -> None:
    finish(tmp_path, spec())
    before = (tmp_path / "journal.jsonl").read_text().count('"record":"stopped"')
    assert not finish(tmp_path, spec()).evaluated
    assert (tmp_path / "journal.jsonl").read_text().count('"record":"stopped"') == before > 0


def test_a_lost_shard_of_a_good_candidate_leaves_no_trace_in_the_tables(tmp_path: Path) -> None:
    """While it counts as failed, later candidates are scored further than they need be."""
    fine = spec(grid={"grid": [0.0, 0.1, "...", 1.0]})
    finish(tmp_path / "whole", fine)
    good = {rows(tmp_path / "whole")[number]["recipe_id"] for number in (21, 32)}

    class Loses(LocalPool[EvalRequest, ShardScore]):
        def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
            return [
                Failure(a.request, "lost", "its worker was lost", "w")
                if a.request.recipe_id in good and a.request.shard == 2 and a.request.split not in ("val", "test")
                else a
                for a in super().wait(timeout)
            ]

    run(make_plan(fine), ANY_SAMPLES, tmp_path / "lost", lambda: Loses(Evaluator(ANY_SAMPLES)), None)
    finish(tmp_path / "lost", fine)
    assert contents(tmp_path / "lost") == contents(tmp_path / "whole")


def test_a_race_with_a_task_of_one_sample_still_races(tmp_path: Path) -> None:
    tasks = {**MANY.tasks, "dogs": ("toy-dogs", 1, 130)}
    finish(tmp_path, spec({"race": 0.05}, objective="accuracy"), identity=replace(MANY, tasks=tasks))
    assert "race" in {row["rule"] for row in read(tmp_path / "stopped.parquet", STOPPED).to_pylist()}


def test_two_tasks_of_the_same_data_have_scores_of_their_own_in_the_cache(tmp_path: Path) -> None:
    tasks = {name: ("the same", 90, 130) for name in IDENTITY.tasks}
    same = replace(ANY_SAMPLES, tasks=tasks)
    cache = ScoreCache(tmp_path, same)
    recipe = Recipe.make("sum")
    first, second = (EvalRequest(recipe, "id", task, "val/0a", 0, 0, 2, (4, 7)) for task in ("cats", "dogs"))
    cache.add([Evaluator(same).evaluate(first)])
    assert cache.get(first) is not None and cache.get(second) is None
