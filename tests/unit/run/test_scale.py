"""Proves that simulated workers are a pool like any other, and that a shard costs the driver the same in a big run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from operations import operations
from toy import IDENTITY, ToyEvaluator, toy_spec

from benchmarks.scale import line, measure
from benchmarks.simulation.runs import Case, scaled
from benchmarks.simulation.workers import Messages, Service, SimulatedPool
from pipeline.messages import EvalRequest, Failure, ShardScore, WorkerInfo
from pipeline.plan.plan import make_plan
from pipeline.pools.base import Pool
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.records.journal import read_history
from pipeline.records.ledger import Ledger
from pipeline.run.group_search import GroupSearch
from pipeline.run.run import run
from pipeline.spec.run import RunSpec

SERVICES = [Service(0.5, 0.01), Service(0.5, 0.02)]
FREE = Messages(0.0, 0.0, 0.0)


def infos(count: int) -> list[WorkerInfo]:
    return [ToyEvaluator(f"worker-{i}").info() for i in range(count)]


def pool_of(workers: int, messages: Messages = FREE) -> SimulatedPool:
    """Workers that score like the toy evaluator; the driver takes no time, so that every run is the same."""
    return SimulatedPool(
        infos(workers), SERVICES, lambda r, worker: ToyEvaluator(worker).evaluate(r), messages, lambda: 0.0
    )


def requests(count: int = 5) -> list[EvalRequest]:
    ledger = Ledger(IDENTITY, 40, {})
    recipes = [Recipe.make("sum", "linear", 0.1 * i, 0.5) for i in range(count)]
    return [r for recipe in recipes for r in ledger.requests(recipe, ["cats", "dogs"], "val")]


def drained(pool: Pool) -> list[ShardScore | Failure]:
    found: list[ShardScore | Failure] = []
    while answers := pool.wait(timeout=100.0):
        found += answers
    return found


@pytest.mark.parametrize("workers", [1, 3, 200])
def test_every_request_is_answered_once_by_a_worker_of_the_pool(workers: int) -> None:
    pool = pool_of(workers)
    wanted = requests()
    pool.submit(wanted[:7])
    found = pool.wait()
    pool.submit(wanted[7:])
    found += drained(pool)
    assert sorted(a.request.key for a in found) == sorted(r.key for r in wanted)
    assert {a.worker for a in found} <= {w.name for w in pool.workers} and pool.wait() == []


def test_the_clock_advances_by_the_work_of_workers_and_by_messages() -> None:
    """One worker takes a rebuild a candidate and the time of each sample; messages take the driver's time."""
    alone, wanted = pool_of(1), requests(2)
    alone.submit(wanted)
    drained(alone)
    spent = alone.spent
    assert spent.rebuilding == 1.0 and 0.01 <= spent.evaluating / sum(r.stop - r.start for r in wanted) <= 0.02
    assert spent.last_answer == pytest.approx(spent.rebuilding + spent.evaluating)
    many = pool_of(100)
    many.submit(wanted)
    drained(many)
    assert many.spent.last_answer <= 0.5 + 40 * 0.02 + 1e-9, "each shard has a worker of its own"
    dear = pool_of(100, Messages(send=10.0))
    dear.submit(wanted)
    drained(dear)
    assert dear.spent.last_answer >= 10.0 * len(wanted), "one driver sends one after the other"


def test_a_wait_ends_after_its_timeout() -> None:
    pool = pool_of(1)
    pool.submit(requests(1))
    assert pool.wait(timeout=0.25) == [] and pool.now == 0.25


def test_ninety_simulated_workers_give_the_tables_of_the_local_pool(tmp_path: Path) -> None:
    plan = make_plan(toy_spec())
    run(plan, IDENTITY, tmp_path / "local", lambda: LocalPool(ToyEvaluator()), None)
    run(plan, IDENTITY, tmp_path / "many", lambda: pool_of(90), None)
    for table in ("candidates.parquet", "scores.parquet", "samples/dogs.parquet"):
        assert (tmp_path / "many" / table).read_bytes() == (tmp_path / "local" / table).read_bytes(), table


@pytest.mark.parametrize("arm", ["grid", "edits", "rescaled", "tpe"])
def test_the_benchmark_works_at_a_tiny_size(arm: str) -> None:
    case = Case(workers=4, candidates=16, tasks=8, samples=30, shard_size=20, arm=arm, in_flight=4)
    services, factor = scaled(SERVICES, case.sample_ms)
    assert factor == pytest.approx(2e-3 / 0.015)
    row = measure(case, services, Messages(), again=True)
    # References on val and test, 16 candidates on val, what was chosen on test: 2 shards each, on 8 tasks. Edits need
    # the 8 experts on all tasks; else each is scored on its own. The merge that is rescaled is one more.
    references, chosen = {"edits": 1 + 8}, {"edits": 8, "rescaled": 1 + 16 + 1}
    assert row.shards == 16 * (2 * references.get(arm, 1 + 1) + 16 + chosen.get(arm, 1))
    assert 0 < row.search_efficiency <= 1 and row.wall > row.search_wall
    assert min(row.read, row.again, row.report, row.journal_mb) > 0
    assert len(line(case, row).splitlines()) == 1


class Watched(SimulatedPool):
    """Records the most requests that were unanswered."""

    unanswered = most = 0

    def submit(self, requests: Iterable[EvalRequest]) -> None:
        new = list(requests)
        self.unanswered += len(new)
        self.most = max(self.most, self.unanswered)
        super().submit(new)

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        answers = super().wait(timeout)
        self.unanswered -= len(answers)
        return answers


def counted(folder: Path, candidates: int, workers: int) -> float:
    """Return the operations for each shard of a grid run."""
    pools: list[Watched] = []
    count = operations(lambda: pools.append(watched(folder, candidates, workers)))
    return count / pools[0].spent.answers


def watched(folder: Path, candidates: int, workers: int) -> Watched:
    """Run a grid."""
    grid = {"grid": [i / candidates for i in range(1, candidates + 1)]}
    plan = make_plan(toy_spec(arms={"merge": {"merge": "sum", "scaling": {"alpha": grid}}}, controls=[]))
    evaluator = ToyEvaluator()
    pool = Watched(infos(workers), SERVICES, lambda r, _: evaluator.evaluate(r), FREE, lambda: 0.0)
    run(plan, IDENTITY, folder, lambda: pool, None)
    assert len(read_history(folder).answers) == len(evaluator.evaluated) == pool.spent.answers
    return pool


@pytest.mark.slow
def test_a_shard_costs_the_driver_the_same_among_many_candidates_and_workers(tmp_path: Path) -> None:
    few = counted(tmp_path / "few", 20, 4)
    assert counted(tmp_path / "many", 120, 4) < 1.2 * few and counted(tmp_path / "wide", 120, 60) < 1.2 * few


def test_a_long_list_is_asked_for_as_the_workers_need_it(tmp_path: Path) -> None:
    """Of 150 candidates with 3 tasks of 3 shards: 64 for few workers, two for each of many."""
    assert watched(tmp_path / "few", 150, 4).most <= 64 * 9
    assert 64 * 9 < watched(tmp_path / "many", 150, 40).most <= 2 * 40 * 9


def rescaled(count: int, chained: bool) -> RunSpec:
    """Return a spec of one merge and `count` arms that rescale it, or each the arm above it."""
    arms: dict[str, Any] = {"merge": {"merge": "sum"}}
    for i in range(count):
        of = f"arm {i - 1}" if chained and i else "merge"
        arms[f"arm {i}"] = {"merge": {"of": of}, "scaling": {"alpha": {"grid": [i / count, 1 + i / count]}}}
    return toy_spec(arms=arms, controls=[])


def searched(folder: Path, spec: RunSpec) -> int:
    """Make a run's plan, work it, and return the number of its shards."""
    evaluator = ToyEvaluator()
    run(make_plan(spec), IDENTITY, folder, lambda: LocalPool(evaluator), None)
    return len(evaluator.evaluated)


@pytest.mark.slow
def test_a_shard_costs_the_driver_the_same_among_many_arms(tmp_path: Path) -> None:
    costs = []
    for count in (10, 80):
        spec, shards = rescaled(count, chained=True), list[int]()
        work = operations(lambda: shards.append(searched(tmp_path / str(count), spec)))  # noqa: B023
        costs.append(work / shards[0])
    assert costs[1] < 1.2 * costs[0]


def test_a_step_looks_at_the_searches_that_the_workers_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few workers need 64 candidates, while 150 arms can begin."""
    looks, advance = list[str](), GroupSearch.advance
    monkeypatch.setattr(GroupSearch, "advance", lambda self: looks.append(self.group.arm) or advance(self))
    searched(tmp_path / "run", rescaled(150, chained=False))
    assert 300 < len(looks) < 64 * 300, "each step completes one of 300 candidates"


def test_a_thousand_arms_in_a_chain_are_planned() -> None:
    plan = make_plan(rescaled(1100, chained=True))
    assert [g.arm for g in plan.searched] == ["merge", *(f"arm {i}" for i in range(1100))]
