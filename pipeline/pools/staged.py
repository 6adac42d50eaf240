"""A pool in two stages: one pool generates completions, and one pool per reward scores them, in parallel.

A shard's completions are generated once, for whichever reward is asked first, and all rewards score them.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from pipeline.messages import COMPLETIONS, Completions, EvalRequest, Failure, ScoreRequest, ShardScore, WorkerInfo
from pipeline.pools.base import Pool
from pipeline.storage.caches.completions import CompletionCache

#: Seconds to wait for each pool in turn; a shard takes about a second.
_POLL = 0.02
_Shard = tuple[str, str, int]


def completions_of(answers: Iterable[ShardScore | Failure]) -> list[Completions]:
    """Return the completions that scores carry."""
    scores = (a for a in answers if isinstance(a, ShardScore) and a.texts)
    return [Completions(replace(s.request, task=COMPLETIONS), s.texts, s.alpha, worker=s.worker) for s in scores]


class StagedPool:
    """A `Pool` for runs whose tasks are rewards.

    Example:
        >>> scorers = {"brief": RayPool(partial(RewardWorker, spec=spec, task="brief"), ActorShape(1))}
        >>> pool = StagedPool(RayPool(partial(CompletionWorker, spec=spec), ActorShape(4)), scorers)
    """

    def __init__(
        self,
        generators: Pool[EvalRequest, Completions],
        scorers: Mapping[str, Pool[ScoreRequest, ShardScore]],
        cache: CompletionCache | None = None,
        known: Iterable[Completions] = (),
    ) -> None:
        """Take over open pools.

        Args:
            generators: the pool that completes prompts, for requests whose task is COMPLETIONS.
            scorers: task -> the pool that scores it, in the order of the run's tasks.
            cache: completions of other runs; None to generate all.
            known: what this run generated before it was stopped: the remaining rewards score the same texts.
        """
        self._generators, self._scorers, self._cache = generators, scorers, cache
        self._completions = {_shard(made.request): made for made in known}
        self._first_task: dict[_Shard, str] = {}
        self._waiting: dict[_Shard, list[EvalRequest]] = {}
        self._open: set[EvalRequest] = set()

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers that generate."""
        return self._generators.workers

    def submit(self, requests: Iterable[EvalRequest]) -> None:
        """Queue requests: at the reward's pool if the completions exist, else until they are generated."""
        new = []
        for request in requests:
            self._open.add(request)
            shard = _shard(request)
            self._first_task.setdefault(shard, request.task)
            if shard not in self._completions and self._cache is not None:
                cached = self._cache.get(replace(request, task=COMPLETIONS))
                self._completions |= {shard: cached} if cached else {}
            if completions := self._completions.get(shard):
                self._scorers[request.task].submit([ScoreRequest(request, completions)])
            elif shard in self._waiting:
                self._waiting[shard].append(request)
            else:
                self._waiting[shard] = [request]
                new.append(replace(request, task=COMPLETIONS))
        self._generators.submit(new)

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        """Return answers that have arrived: at least one unless none is outstanding or `timeout` seconds pass."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._open:
            answers = self._pass_on() + self._scored()
            self._open -= {answer.request for answer in answers}
            if answers or (deadline is not None and time.monotonic() >= deadline):
                return answers
        return []

    def _pass_on(self) -> list[ShardScore | Failure]:
        """Give new completions to the rewards that wait for them; returns the failures of failed generations."""
        failures: list[ShardScore | Failure] = []
        for answer in self._generators.wait(timeout=_POLL):
            waiting = self._waiting.pop(_shard(answer.request))
            if isinstance(answer, Failure):
                failures += [replace(answer, request=request) for request in waiting]
                continue
            if self._cache is not None:
                self._cache.add(answer)
            self._completions[_shard(answer.request)] = answer
            for request in waiting:
                self._scorers[request.task].submit([ScoreRequest(request, answer)])
        return failures

    def _scored(self) -> list[ShardScore | Failure]:
        answers: list[ShardScore | Failure] = []
        for pool in self._scorers.values():
            for answer in pool.wait(timeout=_POLL):
                shard = _shard(answer.request)
                if isinstance(answer, ShardScore) and answer.request.task == self._first_task[shard]:
                    answer = _with_texts(answer, self._completions[shard])
                answers.append(answer)
        return answers

    def close(self) -> None:
        """Stop all workers, even if closing one pool fails; unanswered requests are dropped."""
        with ExitStack() as closing:
            closing.callback(self._generators.close)
            for pool in self._scorers.values():
                closing.callback(pool.close)
            if self._cache is not None:
                self._cache.flush()


def _shard(request: EvalRequest) -> _Shard:
    return request.recipe_id, request.split, request.shard


def _with_texts(score: ShardScore, completions: Completions) -> ShardScore:
    """Add the completions and the time that they took to the score of the reward that was asked first."""
    (setting, generating), (_, scoring) = completions.seconds, score.seconds
    return replace(score, texts=completions.texts, seconds=(setting, generating + scoring), worker=completions.worker)
