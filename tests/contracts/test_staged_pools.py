"""Proves that StagedPool keeps the contract of pools on LocalPool and on Ray, whichever process is killed."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from toy import IDENTITY
from toy_nodes import ray_for_toys
from toy_stages import TASKS, ToyReward, ToyWriter

from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.worker_shapes import staged_shapes
from pipeline.errors import WorkersLostError
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.pools.local import LocalPool
from pipeline.pools.ray_pool import RayPool
from pipeline.pools.staged import StagedPool
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.spec.resources import Resources
from pipeline.storage.caches.completions import CompletionCache

Answers = list[ShardScore | Failure]
MakePool = Callable[..., StagedPool]


def make_writer(name: str, **toy: Any) -> ToyWriter:
    return ToyWriter(name, **toy)


def make_reward(name: str, **toy: Any) -> ToyReward:
    return ToyReward(name, **toy)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # A GPU that need not exist: Ray only counts it.
    with ray_for_toys(num_cpus=4, num_gpus=1):
        yield


def local_pool() -> StagedPool:
    return StagedPool(LocalPool(ToyWriter()), {task: LocalPool(ToyReward(task=task)) for task in TASKS})


@pytest.fixture
def on_ray(cluster: None) -> Iterator[MakePool]:
    pools: list[StagedPool] = []

    def make(
        writer: dict[str, Any] | None = None,
        rewards: dict[str, dict[str, Any]] | None = None,
        retries: int = 1,
        cache: CompletionCache | None = None,
    ) -> StagedPool:
        shape = ActorShape(1, num_cpus=0, retries=retries)
        scorers = {
            task: RayPool(functools.partial(make_reward, task=task, **(rewards or {}).get(task, {})), shape, task)
            for task in TASKS
        }
        generators = RayPool(functools.partial(make_writer, **(writer or {})), ActorShape(2, retries=retries))
        pools.append(StagedPool(generators, scorers, cache))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.cluster)])
def pool(request: pytest.FixtureRequest) -> StagedPool:
    made: StagedPool = local_pool() if request.param == "local" else request.getfixturevalue("on_ray")()
    return made


def requests(count: int = 3) -> list[EvalRequest]:
    ledger = Ledger(IDENTITY, 40, {})
    recipes = [Recipe.make("sum", "linear", 0.1 * i, 0.5) for i in range(count)]
    return [r for recipe in recipes for r in ledger.requests(recipe, TASKS, "val")]


def drain(pool: StagedPool, count: int) -> Answers:
    answers: Answers = []
    deadline = time.monotonic() + 90
    while len(answers) < count and time.monotonic() < deadline:
        answers += pool.wait(timeout=5.0)
    return answers


def answered(pool: StagedPool, wanted: list[EvalRequest]) -> Answers:
    pool.submit(wanted)
    found = drain(pool, len(wanted))
    assert sorted(a.request.key for a in found) == sorted(r.key for r in wanted)
    assert pool.wait() == [], "something was answered twice"
    return found


def outcomes(answers: Answers) -> dict[tuple[str, str, str, int], object]:
    """Return the answers without workers and times."""
    found = {}
    for answer in answers:
        assert isinstance(answer, ShardScore), answer
        found[answer.request.key] = (answer.outcomes.tolist(), asdict(answer.stats), answer.alpha)
    return found


def test_every_request_is_answered_once(pool: StagedPool) -> None:
    assert outcomes(answered(pool, requests())) == outcomes(answered(local_pool(), requests()))


def test_each_shard_has_its_completions_once(pool: StagedPool) -> None:
    found = [a for a in answered(pool, requests()) if isinstance(a, ShardScore) and a.texts]
    assert len({a.request.key for a in found}) == len(found) == len(requests()) / len(TASKS)
    assert all(len(a.texts) == a.stats.n for a in found)


def test_wait_with_nothing_outstanding_returns_at_once(pool: StagedPool) -> None:
    assert pool.wait(timeout=0.0) == [] and pool.wait() == []


def test_rewards_may_be_requested_in_separate_batches(pool: StagedPool) -> None:
    for task in reversed(TASKS):
        assert len(answered(pool, [r for r in requests() if r.task == task])) == len(requests()) / len(TASKS)


@pytest.mark.cluster
@pytest.mark.parametrize("who", ["generator", *TASKS])
def test_an_actor_killed_in_mid_shard_is_replaced_and_no_answer_is_lost(
    on_ray: MakePool, tmp_path: Path, who: str
) -> None:
    die = tmp_path / "die"
    die.touch()
    toy = {"die_at": str(die), "delay": 0.05}
    pool = on_ray(writer=toy) if who == "generator" else on_ray(rewards={who: toy})
    found = outcomes(answered(pool, requests()))
    assert not die.exists(), "no actor died"
    assert found == outcomes(answered(local_pool(), requests()))


@pytest.mark.cluster
def test_a_shard_that_kills_every_scorer_is_a_failure_of_that_reward_alone(on_ray: MakePool) -> None:
    found = answered(on_ray(rewards={"dogs": {"deadly": 1}}), requests(1))
    failed = [a for a in found if isinstance(a, Failure)]
    assert [(a.request.task, a.request.shard, a.kind) for a in failed] == [("dogs", 1, "lost")]
    assert failed[0].worker.startswith("dogs-")


@pytest.mark.cluster
def test_a_reward_that_cannot_be_loaded_ends_the_wait_and_completions_are_kept(
    on_ray: MakePool, tmp_path: Path
) -> None:
    pool = on_ray(rewards={"dogs": {"broken": True}}, cache=CompletionCache(tmp_path, "context"))
    pool.submit(requests())
    with pytest.raises(ValueError, match="dogs-0 could not load: ValueError: tasks.dogs: no such label"):
        drain(pool, len(requests()))
    pool.close()
    assert any(CompletionCache(tmp_path, "context").get(r) for r in requests())


@pytest.mark.cluster
def test_a_reward_whose_actors_all_die_ends_the_wait_and_is_named(
    on_ray: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.pools.fault_attribution.IN_A_ROW", 1)  # actors take seconds to start
    pool = on_ray(rewards={"dogs": {"deadly": 0}}, retries=100)
    pool.submit(requests(1))
    with pytest.raises(WorkersLostError, match=r"the last, dogs-\d+: "):
        drain(pool, 10_000)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("rewards", "per_reward", "per_worker", "expected"),
    [(2, "auto", "auto", (1, 0.8, 0.1)), (3, "auto", "auto", (1, 0.7, 0.1)), (2, 0, "auto", (1, 1.0, 0.0))]
    + [(1, 0.2, 0.4, (2, 0.4, 0.2)), (3, "auto", 0, (4, 0, 0.1))],
)
def test_rewards_and_workers_share_a_gpu(
    rewards: int, per_reward: object, per_worker: object, expected: tuple[int, float, float]
) -> None:
    shape, reward = staged_shapes(resources(per_reward, per_worker), rewards)
    assert (shape.workers, shape.num_gpus, reward.num_gpus) == expected
    assert shape.workers * shape.num_gpus + rewards * reward.num_gpus <= 1 + 1e-9


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("rewards", "per_reward"), [(1, 1), (2, 0.5), (10, "auto"), (11, "auto")])
def test_rewards_that_leave_no_gpu_for_a_worker_are_refused(rewards: int, per_reward: object) -> None:
    with pytest.raises(
        ValueError,
        match=rf"resources.per_reward: {rewards} rewards, .* leave too little for a worker, which asks for 1 ",
    ):
        staged_shapes(resources(per_reward, "auto"), rewards)


def resources(per_reward: object, per_worker: object) -> Resources:
    gpus = {"per_reward": {"num_gpus": per_reward}, "per_worker": {"num_gpus": per_worker}}
    return Resources.model_validate(gpus)
