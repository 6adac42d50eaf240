"""The loop of a run: propose, request, journal, tell; references first, then the search, then the test."""

from collections.abc import Callable, Iterable, Mapping

from pipeline.messages import EvalRequest, Failure, ShardScore, WorkerInfo
from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan, proposer
from pipeline.pools.base import Pool
from pipeline.recipe import Recipe
from pipeline.records.journal import GroupKey, Journal, ShardKey
from pipeline.records.ledger import Ledger
from pipeline.run.forecast import forecast
from pipeline.run.group_search import GroupSearch, Ticket
from pipeline.run.progress import RunProgress
from pipeline.run.selection import Candidate, References, check_rewards, choose, complete, references
from pipeline.storage.caches.scores import ScoreCache
from search.proposer import Proposal

#: Candidates of fixed lists that are requested ahead, per worker: the one it evaluates and the next. Requesting a list
#: of thousands at once would keep the first workers waiting and fill the memory.
_AHEAD = 2
#: The least number requested ahead: no worker has loaded at first, and a few workers need more than two each.
_LEAST_AHEAD = 64


class Driver:
    """Works one run to its end, from the state of its journal."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        journal: Journal,
        pool: Pool,
        cache: ScoreCache | None = None,
        watch: Callable[[RunProgress], None] = lambda progress: None,
    ) -> None:
        """Take the open parts of a run.

        Args:
            plan: the arms and their groups.
            ledger: the answers so far; grows.
            journal: every proposal and answer is written here before it counts.
            pool: the workers.
            cache: scores of other runs.
            watch: called after every step.
        """
        self.plan = plan
        self.ledger = ledger
        self._journal = journal
        self._pool = pool
        self._cache = cache
        self._watch = watch
        self._tickets: dict[ShardKey, list[Ticket]] = {}
        self._checked: set[str] = set()
        self._open = 0
        self._workers = 0
        self.progress = RunProgress()
        self.proposals: dict[GroupKey, list[Proposal]] = {}

    def run(self, recorded: dict[GroupKey, list[Proposal]]) -> None:
        """Work the run to its end.

        Args:
            recorded: the proposals in the journal.

        Raises:
            ValueError: if a worker has other checkpoints, data or versions than the run, or a reward fails on the
                pre-trained model's completions or gives all of them the same value.
        """
        self.proposals = {key: list(value) for key, value in recorded.items()}
        self.progress.shards_expected = forecast(self.plan, self.ledger).shards
        self.progress.shards_done = self.progress.shards_asked = len(self.ledger.answers)
        self._drive(self.plan.references, References({}, {}))
        refs = references(self.plan, self.ledger, "val")
        check_rewards(self.ledger, refs)
        self._enter("search")
        judged = self._drive(self.plan.searched, refs)
        self._enter("test")
        self._test(judged)

    def _enter(self, phase: str) -> None:
        self.progress.phase, self.progress.latest = phase, ()
        self._watch(self.progress)

    def _search(self, group: Group, refs: References) -> GroupSearch:
        recorded = self.proposals.setdefault(group.key, [])
        return GroupSearch(self, group, refs, recorded, proposer(group, self.plan.spec))

    @property
    def needs_candidates(self) -> bool:
        """Whether the workers would soon run out of requested candidates."""
        return self._open < max(_LEAST_AHEAD, _AHEAD * self._workers)

    def _drive(self, groups: Iterable[Group], refs: References) -> dict[GroupKey, list[Candidate]]:
        """Search each group once its parents have chosen, and return the candidates of all."""
        waiting, active = list(groups), list[GroupSearch]()
        judged: dict[GroupKey, list[Candidate]] = {}
        while waiting or active:
            ready = [g for g in waiting if g.derivation is None or judged.keys() >= set(g.derivation.parents)]
            waiting = [g for g in waiting if g not in ready]
            for planned in ready:
                group = complete(planned, judged)
                if group is None:
                    judged[planned.key] = []
                else:
                    active.append(self._search(group, refs))
            for search in active:
                search.advance()
            done = [s for s in active if s.done]
            active = [s for s in active if not s.done]
            judged |= {s.group.key: s.candidates for s in done}
            if active and not done:
                self._absorb_until_change()
        return judged

    def _absorb_until_change(self) -> None:
        """Absorb answers until a candidate is complete or a worker joins: before that no search can advance."""
        before = self._open, self._workers
        while (self._open, self._workers) == before:
            self._absorb()

    def _test(self, judged: Mapping[GroupKey, list[Candidate]]) -> None:
        """Score on test, once, what was chosen on validation; for a curve, of which nothing is chosen, every point."""
        tested = [(g.recipe({}), tuple(g.roles)) for g in self.plan.references]
        for group in self.plan.searched:
            candidates = judged[group.key]
            chosen = choose(candidates)
            if group.test_all:
                tested += [(c.recipe, tuple(group.roles)) for c in candidates if c.values is not None]
            elif chosen is not None and group.kind != "mask":
                tested.append((chosen.recipe, tuple(group.roles)))
        for recipe, tasks in dict.fromkeys(tested):
            self.request(recipe, tasks, "test")
        while self._open:
            self._absorb()

    def propose(self, group: Group, proposal: Proposal) -> None:
        """Journal a proposal before anything is evaluated for it."""
        self._journal.proposal(group.key, proposal)

    def count(self, group: GroupKey, candidate: Candidate) -> None:
        """Count a candidate that is complete."""
        self.progress.candidates_done += 1
        if candidate.values is not None:
            self.progress.best[group] = max(self.progress.best.get(group, float("-inf")), sum(candidate.values))

    def request(self, recipe: Recipe, tasks: Iterable[str], split: str) -> Ticket:
        """Request the shards of a recipe that have no answer and are not requested yet."""
        missing = self._uncached(self.ledger.missing(recipe, tasks, split))
        ticket = Ticket({r.key for r in missing})
        self._open += not ticket.done
        new = [r for r in missing if r.key not in self._tickets]
        for key in ticket.missing:
            self._tickets.setdefault(key, []).append(ticket)
        self.progress.shards_asked += len(new)
        self._pool.submit(new)
        return ticket

    def _uncached(self, requests: list[EvalRequest]) -> list[EvalRequest]:
        """Record the requests that the score cache answers, and return the others."""
        if self._cache is None:
            return requests
        cached = [s for r in requests if (s := self._cache.get(r)) is not None]
        self._record(cached)
        self.progress.add_cached(len(cached))
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

    def _absorb(self) -> None:
        """Wait for answers, record them, and remove them from the tickets that wait for them."""
        answers, workers = self._pool.wait(timeout=1.0), self._pool.workers
        self._check_workers(workers, answers)
        self._record(answers)
        if self._cache is not None:
            self._cache.add(a for a in answers if isinstance(a, ShardScore))
        for key in (answer.request.key for answer in answers):
            for ticket in self._tickets.pop(key, []):
                ticket.missing.discard(key)
                self._open -= ticket.done
        self.progress.add(answers, workers)
        self._watch(self.progress)
