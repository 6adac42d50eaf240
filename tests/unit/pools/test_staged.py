"""Proves that a shard is completed once and scored by every reward, and that each failure reaches its requests."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import IDENTITY, ToyEvaluator

from pipeline.messages import COMPLETIONS, Completions, EvalRequest, Failure, ScoreRequest, ShardScore, WorkerInfo
from pipeline.pools.local import LocalPool
from pipeline.pools.staged import StagedPool, completions_of
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.storage.caches.completions import CompletionCache
from tasks.stats import Stats

TASKS = ("cats", "dogs")


class Writer(ToyEvaluator):
    """Completes with the recipe's id."""

    def evaluate(self, request: EvalRequest) -> Completions:  # type: ignore[override]
        self.evaluated.append(request)
        if request.shard == 1 and request.split == self.broken:
            raise RuntimeError("no words")
        texts = tuple(f"{request.recipe_id} {i}" for i in range(request.start, request.stop))
        return Completions(request, texts, 0.5, (0.1, 2.0), self.name)

    broken = ""


class Lengths:
    """Scores a text by its length."""

    def __init__(self, task: str) -> None:
        self.task, self.seen = task, list[ScoreRequest]()

    def info(self) -> WorkerInfo:
        return replace(ToyEvaluator().info(), name=f"reward {self.task}")

    def evaluate(self, request: ScoreRequest) -> ShardScore:
        assert request.request.task == self.task
        self.seen.append(request)
        outcomes = np.array([len(text) for text in request.completions.texts], np.float32)
        stats = Stats(len(outcomes), float(outcomes.sum()), float((outcomes**2).sum()))
        return ShardScore(request.request, stats, outcomes, request.completions.alpha, (0.0, 0.3), "scorer")


class Stage:
    def __init__(self, cache: CompletionCache | None = None, known: Iterable[Completions] = ()) -> None:
        self.writer = Writer("writer")
        self.rewards = {task: Lengths(task) for task in TASKS}
        pools = {task: LocalPool(reward) for task, reward in self.rewards.items()}
        self.pool = StagedPool(LocalPool(self.writer), pools, cache, known)

    def texts(self, score: ShardScore) -> tuple[str, ...]:
        seen = self.rewards[score.request.task].seen
        return next(s.completions.texts for s in seen if s.request == score.request)

    def answers(self, requests: list[EvalRequest]) -> list[ShardScore | Failure]:
        self.pool.submit(requests)
        found: list[ShardScore | Failure] = []
        while answers := self.pool.wait():
            found += answers
        return found


def requests(recipes: int = 2) -> list[EvalRequest]:
    ledger = Ledger(IDENTITY, 40, {})
    made = [Recipe.make("sum", "linear", 0.1 * i, 0.5) for i in range(recipes)]
    return [r for recipe in made for r in ledger.requests(recipe, TASKS, "val")]


def test_every_shard_is_completed_once_and_scored_by_every_reward() -> None:
    stage = Stage()
    found = stage.answers(requests())
    assert sorted(a.request.key for a in found) == sorted(r.key for r in requests())
    assert len(stage.writer.evaluated) == len(requests()) / 2
    assert {r.task for r in stage.writer.evaluated} == {COMPLETIONS}
    for task in TASKS:
        mine = [a for a in found if a.request.task == task and isinstance(a, ShardScore)]
        assert all(a.stats.total == sum(len(t) for t in stage.texts(a)) for a in mine)


def test_the_first_reward_carries_the_completions_and_their_time() -> None:
    for answer in Stage().answers(requests()):
        assert isinstance(answer, ShardScore)
        first = answer.request.task == TASKS[0]
        assert bool(answer.texts) == first and answer.alpha == 0.5
        assert answer.seconds == ((0.1, 2.3) if first else (0.0, 0.3))


def test_a_failed_generation_is_the_failure_of_all_requests_that_wait() -> None:
    stage = Stage()
    stage.writer.broken = "val"
    failed = [a for a in stage.answers(requests(1)) if isinstance(a, Failure)]
    assert {(a.request.task, a.request.shard) for a in failed} == {("cats", 1), ("dogs", 1)}
    assert all("no words" in a.cause for a in failed)


def test_a_reward_that_fails_leaves_the_other_and_the_completions(tmp_path: Path) -> None:
    stage = Stage(CompletionCache(tmp_path, "context"))

    def refuse(self: Lengths, request: ScoreRequest) -> ShardScore:
        raise ValueError("NaN")

    stage.rewards["dogs"].evaluate = refuse.__get__(stage.rewards["dogs"])  # type: ignore[method-assign]
    found = stage.answers(requests(1))
    assert {a.request.task for a in found if isinstance(a, Failure)} == {"dogs"}
    stage.pool.close()
    repaired = Stage(CompletionCache(tmp_path, "context"))
    again = repaired.answers(requests(1))
    assert repaired.writer.evaluated == [] and all(isinstance(a, ShardScore) for a in again)


def test_completions_of_another_context_are_not_used(tmp_path: Path) -> None:
    first = Stage(CompletionCache(tmp_path, "context"))
    first.answers(requests(1))
    first.pool.close()
    other = Stage(CompletionCache(tmp_path, "another"))
    other.answers(requests(1))
    assert other.writer.evaluated


def test_rewards_may_be_requested_one_after_the_other() -> None:
    stage = Stage()
    by_task = {task: [r for r in requests(1) if r.task == task] for task in TASKS}
    assert len(stage.answers(by_task["dogs"])) == len(by_task["dogs"])
    made = len(stage.writer.evaluated)
    assert len(stage.answers(by_task["cats"])) == len(by_task["cats"])
    assert len(stage.writer.evaluated) == made


def test_a_reward_that_is_requested_alone_carries_the_completions() -> None:
    found = Stage().answers([r for r in requests(1) if r.task == "dogs"])
    assert all(isinstance(a, ShardScore) and len(a.texts) == a.stats.n for a in found)


def test_known_completions_are_not_generated_again() -> None:
    first = [a for a in Stage().answers(requests(1)) if isinstance(a, ShardScore)]
    stage = Stage(known=completions_of(first))
    again = stage.answers([r for r in requests(1) if r.task == "dogs"])
    assert stage.writer.evaluated == [] and len(again) == len(requests(1)) / 2
    known = {a.request.shard: a.texts for a in first if a.texts}
    assert all(isinstance(a, ShardScore) and stage.texts(a) == known[a.request.shard] for a in again)


def test_a_pool_that_fails_to_close_does_not_keep_others_open_or_completions_unwritten(tmp_path: Path) -> None:
    closed: list[str] = []

    class Stubborn(LocalPool[EvalRequest, Completions]):
        def close(self) -> None:
            raise OSError("no")

    class Noted(LocalPool[ScoreRequest, ShardScore]):
        def close(self) -> None:
            closed.append(self._info.name)

    scorers = {task: Noted(Lengths(task)) for task in TASKS}
    pool = StagedPool(Stubborn(Writer("writer")), scorers, CompletionCache(tmp_path, "context"))
    pool.submit(requests(1))
    while pool.wait():
        pass
    with pytest.raises(OSError, match="no"):
        pool.close()
    assert sorted(closed) == ["reward cats", "reward dogs"]
    assert list((tmp_path / "completions").iterdir())


def test_wait_without_requests_returns_at_once() -> None:
    stage = Stage()
    assert stage.pool.wait() == [] and stage.pool.wait(timeout=0.0) == []
    assert [w.name for w in stage.pool.workers] == ["writer"]
