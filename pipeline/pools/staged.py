"""Completions by one pool, their scores by one pool a reward: what is generated next overlaps with what is scored.

A shard's completions are made once, whichever of its rewards is asked for first, and every reward then scores them.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from pipeline.messages import COMPLETIONS, Completions, EvalRequest, Failure, ScoreRequest, ShardScore, WorkerInfo
from pipeline.pools.base import Pool
from pipeline.storage.caches.completions import CompletionCache

#: Seconds for which each pool is asked in turn; a shard takes about a second.
_POLL = 0.02
_Shard = tuple[str, str, int]

Generators = Pool[EvalRequest, Completions]
Scorers = Mapping[str, Pool[ScoreRequest, ShardScore]]


def completions_of(answers: Iterable[ShardScore | Failure]) -> list[Completions]:
    """The completions that scores carry."""
    scores = (a for a in answers if isinstance(a, ShardScore) and a.texts)
    return [Completions(replace(s.request, task=COMPLETIONS), s.texts, s.alpha, worker=s.worker) for s in scores]


class StagedPool:
    """A `Pool` for runs whose tasks are rewards."""

    def __init__(
        self,
        generators: Generators,
        scorers: Scorers,
        cache: CompletionCache | None = None,
        known: Iterable[Completions] = (),
    ) -> None:
        """Take over pools, all of them open.

        Args:
            generators: complete prompts; asked with the task COMPLETIONS.
            scorers: task -> who scores it, in the order of the run's tasks.
            cache: completions of other runs; None to generate everything anew.
            known: what this run had generated when it was stopped: other rewards score the very same texts.
        """
        self._generators, self._scorers, self._cache = generators, scorers, cache
        self._made = {_shard(made.request): made for made in known}
        self._carriers: dict[_Shard, str] = {}
        self._waiting: dict[_Shard, list[EvalRequest]] = {}
        self._open: set[EvalRequest] = set()

    @property
    def workers(self) -> list[WorkerInfo]:
        """Those that generate."""
        return self._generators.workers

    def submit(self, requests: Iterable[EvalRequest]) -> None:
        """Queue requests: at the reward's own pool where the completions are there, else behind their generation."""
        new = []
        for request in requests:
            self._open.add(request)
            shard = _shard(request)
            self._carriers.setdefault(shard, request.task)
            if shard not in self._made and self._cache is not None:
                found = self._cache.get(replace(request, task=COMPLETIONS))
                self._made |= {shard: found} if found else {}
            if made := self._made.get(shard):
                self._scorers[request.task].submit([ScoreRequest(request, made)])
            elif shard in self._waiting:
                self._waiting[shard].append(request)
            else:
                self._waiting[shard] = [request]
                new.append(replace(request, task=COMPLETIONS))
        self._generators.submit(new)

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        """Answers that have arrived, at least one unless nothing is outstanding or `timeout` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._open:
            answers = self._failed_or_passed_on() + self._scored()
            self._open -= {answer.request for answer in answers}
            if answers or (deadline is not None and time.monotonic() >= deadline):
                return answers
        return []

    def _failed_or_passed_on(self) -> list[ShardScore | Failure]:
        """Hand new completions to the rewards that wait for them; failures are those of all who wait."""
        failures: list[ShardScore | Failure] = []
        for answer in self._generators.wait(timeout=_POLL):
            waiting = self._waiting.pop(_shard(answer.request))
            if isinstance(answer, Failure):
                failures += [replace(answer, request=request) for request in waiting]
                continue
            if self._cache is not None:
                self._cache.add(answer)
            self._made[_shard(answer.request)] = answer
            for request in waiting:
                self._scorers[request.task].submit([ScoreRequest(request, answer)])
        return failures

    def _scored(self) -> list[ShardScore | Failure]:
        answers: list[ShardScore | Failure] = []
        for pool in self._scorers.values():
            for answer in pool.wait(timeout=_POLL):
                shard = _shard(answer.request)
                if isinstance(answer, ShardScore) and answer.request.task == self._carriers[shard]:
                    answer = _with_texts(answer, self._made[shard])
                answers.append(answer)
        return answers

    def close(self) -> None:
        """Stop all workers, each even where another one's end fails; unanswered requests are dropped."""
        with ExitStack() as closing:
            closing.callback(self._generators.close)
            for pool in self._scorers.values():
                closing.callback(pool.close)
            if self._cache is not None:
                self._cache.flush()


def _shard(request: EvalRequest) -> _Shard:
    return request.recipe_id, request.split, request.shard


def _with_texts(score: ShardScore, made: Completions) -> ShardScore:
    """The score of the reward that was asked first also carries the completions, and the time that they took."""
    (setting, generating), (_, scoring) = made.seconds, score.seconds
    return replace(score, texts=made.texts, seconds=(setting, generating + scoring), worker=made.worker)
