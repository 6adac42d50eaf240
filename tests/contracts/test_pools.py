"""Proves that all pools keep one contract: every request is answered once, by a score or a failure."""

import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from toy import IDENTITY, ToyEvaluator, toy_spec
from toy_nodes import ray_for_toys

from pipeline.cluster.capacity import ActorShape
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.base import Pool
from pipeline.pools.deferred import DeferredPool
from pipeline.pools.local import LocalPool
from pipeline.pools.ray_pool import RayPool
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.run.run import run

MakePool = Callable[..., Pool]


def make_toy(name: str, **toy: Any) -> ToyEvaluator:
    return ToyEvaluator(name, **toy)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_for_toys(num_cpus=4):
        yield


@pytest.fixture(params=["local", "deferred", pytest.param("ray", marks=pytest.mark.cluster)])
def make_pool(request: pytest.FixtureRequest) -> Iterator[MakePool]:
    pools: list[Pool] = []

    def make(**toy: Any) -> Pool:
        if request.param == "local":
            pools.append(LocalPool(ToyEvaluator(**toy)))
        elif request.param == "deferred":
            pools.append(DeferredPool(lambda: LocalPool(ToyEvaluator(**toy))))
        else:
            request.getfixturevalue("cluster")
            pools.append(RayPool(functools.partial(make_toy, **toy), ActorShape(workers=2)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def requests(count: int = 3) -> list[EvalRequest]:
    ledger = Ledger(IDENTITY, 40, {})
    recipes = [Recipe.make("sum", "linear", 0.1 * i, 0.5) for i in range(count)]
    return [r for recipe in recipes for r in ledger.requests(recipe, ["cats", "dogs"], "val")]


def drain(pool: Pool, count: int) -> list[ShardScore | Failure]:
    answers: list[ShardScore | Failure] = []
    deadline = time.monotonic() + 90  # a process takes tens of seconds to start on a busy machine
    while len(answers) < count and time.monotonic() < deadline:
        answers += pool.wait(timeout=5.0)
    return answers


def test_every_request_is_answered_once(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.submit(requests())
    answers = drain(pool, len(requests()))
    assert sorted(a.request.key for a in answers) == sorted(r.key for r in requests())
    assert all(isinstance(a, ShardScore) for a in answers)


def test_wait_with_nothing_outstanding_returns_at_once(make_pool: MakePool) -> None:
    pool = make_pool()
    assert pool.wait(timeout=0.0) == [] and pool.wait() == []


def test_requests_may_come_in_several_batches(make_pool: MakePool) -> None:
    pool = make_pool()
    wanted = requests()
    pool.submit(wanted[:2])
    first = drain(pool, 2)
    pool.submit(wanted[2:])
    assert len(first) + len(drain(pool, len(wanted) - 2)) == len(wanted)


def test_an_application_error_is_a_failure_with_its_cause_and_others_are_scored(make_pool: MakePool) -> None:
    pool = make_pool(broken=("dogs", "val"))
    pool.submit(requests())
    answers = drain(pool, len(requests()))
    failed = [a for a in answers if isinstance(a, Failure)]
    assert {a.request.task for a in failed} == {"dogs"} and len(failed) == len(answers) / 2
    assert all(a.kind == "application" and a.cause.startswith("RuntimeError: sample") for a in failed)


def test_workers_report_what_they_hold(make_pool: MakePool) -> None:
    pool = make_pool()
    pool.submit(requests(1))
    drain(pool, len(requests(1)))
    assert pool.workers
    for worker in pool.workers:
        IDENTITY.check(worker)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_an_actor_killed_in_mid_shard_is_replaced_and_no_answer_is_lost(tmp_path: Path) -> None:
    die = tmp_path / "die"
    die.touch()
    pool = RayPool(functools.partial(make_toy, die_at=str(die), delay=0.05), ActorShape(workers=2))
    pool.submit(requests())
    answers = drain(pool, len(requests()))
    pool.close()
    assert not die.exists(), "no actor died"
    assert sorted(a.request.key for a in answers) == sorted(r.key for r in requests())
    assert all(isinstance(a, ShardScore) for a in answers)


class AlwaysDies(ToyEvaluator):
    """Dies on every request of one task."""

    def evaluate(self, request: EvalRequest) -> ShardScore:
        if request.task == "dogs" and request.shard == 1:
            os._exit(1)
        return super().evaluate(request)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_a_shard_that_kills_every_worker_becomes_a_failure_and_the_rest_is_scored() -> None:
    pool = RayPool(AlwaysDies, ActorShape(workers=2, retries=1))
    pool.submit(requests(2))
    answers = drain(pool, len(requests(2)))
    pool.close()
    failed = [a for a in answers if isinstance(a, Failure)]
    assert sorted(a.request.key for a in answers) == sorted(r.key for r in requests(2))
    assert {(a.request.task, a.request.shard, a.kind) for a in failed} == {("dogs", 1, "lost")}


class TwoArguments(Exception):
    """Its pickle cannot be read back, like that of many errors of HTTP clients."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")


class Judge(ToyEvaluator):
    """Raises an error that cannot be read back in some shards."""

    def evaluate(self, request: EvalRequest) -> ShardScore:
        if request.shard == 1:
            raise TwoArguments("status", 500)
        return super().evaluate(request)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_an_error_that_cannot_be_read_back_is_a_failure_and_kills_no_worker() -> None:
    pool = RayPool(Judge, ActorShape(workers=2))
    pool.submit(requests(3))
    answers = drain(pool, len(requests(3)))
    names = [worker.name for worker in pool.workers]
    pool.close()
    failed = [a for a in answers if isinstance(a, Failure)]
    assert failed and all(a.kind == "application" and "TwoArguments: status 500" in a.cause for a in failed)
    assert names and set(names) <= {"worker-0", "worker-1"}


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_a_worker_with_other_checkpoints_answers_nothing_and_the_first_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = RayPool(OtherCheckpoints, ActorShape(workers=2))
    pool.submit(requests())
    answers = drain(pool, len(requests()))
    pool.close()
    assert len({a.worker for a in answers}) == 1 == len(pool.workers)
    assert sorted(a.request.key for a in answers) == sorted(r.key for r in requests())
    assert "all nodes must see the same files" in caplog.text


def make_noted(name: str, note: str) -> ToyEvaluator:
    Path(note).touch()
    return ToyEvaluator(name)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_held_actors_import_and_load_nothing_until_they_are_told(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    pool = RayPool(functools.partial(make_noted, note=str(loaded)), ActorShape(workers=2), held="toy")
    ray.get(
        [actor.handle.import_module.remote("no.such.module") for actor in pool.actors]
    )  # an error is left to `load`
    assert not loaded.exists() and pool.workers == []
    pool.load(IDENTITY.check)
    pool.submit(requests())
    answers = drain(pool, len(requests()))
    pool.close()
    assert loaded.exists() and sorted(a.request.key for a in answers) == sorted(r.key for r in requests())


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_wait_raises_if_every_worker_has_other_checkpoints_than_the_run() -> None:
    pool = RayPool(OtherCheckpoints, ActorShape(workers=2), check=IDENTITY.check)
    pool.submit(requests())
    with pytest.raises(ValueError, match=r"worker-\d \(none\): its checkpoints differ from the run's"):
        drain(pool, 10_000)
    pool.close()


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_a_shard_that_hangs_is_answered_by_another_worker_and_only_once(tmp_path: Path) -> None:
    pool = RayPool(functools.partial(HangsOnce, file=str(tmp_path / "hangs")), ActorShape(workers=2))
    pool.submit(requests())
    answers = drain(pool, len(requests()))
    assert (tmp_path / "hangs").exists() and pool.wait(timeout=0.5) == []
    pool.close()
    assert sorted(a.request.key for a in answers) == sorted(r.key for r in requests())
    assert all(isinstance(a, ShardScore) for a in answers)


class HangsOnce(ToyEvaluator):
    """The first worker that is asked for shard 2 hangs."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name, delay=0.05)
        self._file = Path(file)

    def evaluate(self, request: EvalRequest) -> ShardScore:
        if request.shard == 2 and not self._file.exists():
            self._file.touch()
            time.sleep(3600)
        return super().evaluate(request)


class OtherCheckpoints(ToyEvaluator):
    """Each worker reports another fingerprint."""

    def info(self) -> Any:
        from dataclasses import replace

        return replace(super().info(), fingerprint=self.name)

    def evaluate(self, request: EvalRequest) -> ShardScore:
        time.sleep(1)
        return super().evaluate(request)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_one_and_three_ray_workers_with_one_killed_give_the_tables_of_the_local_pool(tmp_path: Path) -> None:
    plan = make_plan(toy_spec())
    run(plan, IDENTITY, tmp_path / "local", lambda: LocalPool(ToyEvaluator()), None)
    die = tmp_path / "die"
    die.touch()
    for workers, toy in ((1, {}), (3, {"die_at": str(die), "delay": 0.002})):
        make = functools.partial(make_toy, **toy)
        shape = ActorShape(workers=workers)
        run(plan, IDENTITY, tmp_path / str(workers), functools.partial(RayPool, make, shape), None)
        for table in ("candidates.parquet", "scores.parquet", "samples/dogs.parquet"):
            assert (tmp_path / str(workers) / table).read_bytes() == (tmp_path / "local" / table).read_bytes(), table
    assert not die.exists()
