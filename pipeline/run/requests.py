"""Requests to the pool: what is unknown is requested once, and answers are journaled before they count."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pipeline.messages import EvalRequest, Failure, ShardScore, WorkerInfo
from pipeline.plan.groups import Group
from pipeline.pools.base import Pool
from pipeline.recipe import Recipe
from pipeline.records.journal import Journal, ShardKey
from pipeline.records.ledger import Ledger
from pipeline.run.progress import RunProgress
from pipeline.run.selection import Candidate
from pipeline.storage.caches.scores import ScoreCache
from search.proposer import Proposal

#: Candidates of fixed lists that are requested ahead, per worker: the one it evaluates and the next. Requesting a list
#: of thousands at once would keep the first workers waiting and fill the memory.
_AHEAD = 2
#: The least number requested ahead: no worker has loaded at first, and a few workers need more than two each.
_LEAST_AHEAD = 64


@dataclass(slots=True)
class Ticket:
    """The shards of a recipe that have no answer yet, on some tasks of a split."""

    missing: set[ShardKey]

    @property
    def done(self) -> bool:
        """Whether every shard is answered, by a score or a failure."""
        return not self.missing


class ShardRequests:
    """The shards of a run that are requested and not answered yet.

    Attributes:
        ledger: the answers so far; grows.
        open: tickets with a missing answer.
    """

    def __init__(
        self, ledger: Ledger, journal: Journal, pool: Pool, cache: ScoreCache | None, progress: RunProgress
    ) -> None:
        """Start without requests.

        Args:
            ledger: the answers so far.
            journal: every proposal and answer is written here before it counts.
            pool: the workers.
            cache: scores of other runs.
            progress: counts every step.
        """
        self.ledger = ledger
        self._journal = journal
        self._pool = pool
        self._cache = cache
        self._progress = progress
        self._tickets: dict[ShardKey, list[Ticket]] = {}
        self._checked: set[str] = set()
        self.open = 0
        self._workers = 0

    @property
    def state(self) -> tuple[int, int]:
        """Numbers of open tickets and of workers: no search can advance before one of them changes."""
        return self.open, self._workers

    @property
    def needs_candidates(self) -> bool:
        """Whether the workers would soon run out of requested candidates."""
        return self.open < max(_LEAST_AHEAD, _AHEAD * self._workers)

    @property
    def has_room(self) -> bool:
        """Whether another candidate may begin its stages: with more of them, each worker would set them in turn."""
        return self.open < _AHEAD * max(1, self._workers)

    def propose(self, group: Group, proposal: Proposal) -> None:
        """Journal a proposal before anything is evaluated for it."""
        self._journal.proposal(group.key, proposal)

    def decided(self, candidate: Candidate) -> None:
        """Count a candidate that is final; journal why it was stopped."""
        self._progress.candidates_done += 1
        group = candidate.group.key
        if candidate.values is not None:
            self._progress.best[group] = max(self._progress.best.get(group, float("-inf")), sum(candidate.values))
        if candidate.stopped is not None:
            self._journal.stopped(group, candidate.proposal.number, json.loads(json.dumps(asdict(candidate.stopped))))

    def request(self, recipe: Recipe, tasks: Iterable[str], split: str, stage: int | None = None) -> Ticket:
        """Request the shards of a recipe, or of one stage, that have no answer and are not requested yet."""
        missing = self._uncached(self.ledger.missing(recipe, tasks, split, stage))
        ticket = Ticket({r.key for r in missing})
        self.open += not ticket.done
        new = [r for r in missing if r.key not in self._tickets]
        for key in ticket.missing:
            self._tickets.setdefault(key, []).append(ticket)
        self._progress.shards_asked += len(new)
        self._pool.submit(new)
        return ticket

    def _uncached(self, requests: list[EvalRequest]) -> list[EvalRequest]:
        """Record the requests that the score cache answers, and return the others."""
        if self._cache is None:
            return requests
        cached = [s for r in requests if (s := self._cache.get(r)) is not None]
        self._record(cached)
        self._progress.add_cached(len(cached))
        return [r for r in requests if r.key not in self.ledger.answers]

    def _record(self, answers: list[ShardScore] | list[ShardScore | Failure]) -> None:
        """Journal answers, then add them to the ledger."""
        self._journal.answers(answers)
        self.ledger.answers.update((a.request.key, a) for a in answers)

    def _check_workers(self, workers: list[WorkerInfo], answers: list[ShardScore | Failure]) -> None:
        """Refuse a worker that has loaded something else, before any of its answers is journaled or cached."""
        if len(workers) == self._workers and self._checked.issuperset(a.worker for a in answers):
            return
        self._workers = len(workers)
        for worker in workers:
            if worker.name not in self._checked:
                self.ledger.identity.check(worker)
                self._checked.add(worker.name)

    def absorb(self) -> None:
        """Wait for answers, record them, and remove them from the tickets that wait for them."""
        answers, workers = self._pool.wait(timeout=1.0), self._pool.workers
        self._check_workers(workers, answers)
        self._record(answers)
        if self._cache is not None:
            self._cache.add(a for a in answers if isinstance(a, ShardScore))
        for key in (answer.request.key for answer in answers):
            for ticket in self._tickets.pop(key, []):
                ticket.missing.discard(key)
                self.open -= ticket.done
        self._progress.add(answers, workers)
