"""The loop of a run: propose, hand out, journal, tell; references first, then the search, then the test."""

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

#: Candidates of fixed lists that are asked for ahead of the workers: one that each works on, one that it takes next.
#: All at once would keep the first workers waiting, and fill the memory, while a list of thousands is gone through.
_AHEAD = 2
#: At least so many: before workers have loaded there is none, and a few workers want more than two each.
_LEAST_AHEAD = 64


class Driver:
    """One run, worked from wherever its journal stands to its end."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        journal: Journal,
        pool: Pool,
        cache: ScoreCache | None = None,
        watch: Callable[[RunProgress], None] = lambda progress: None,
    ) -> None:
        """Take over the parts, all of them open.

        Args:
            plan: what to do.
            ledger: what is known already; grows.
            journal: where every proposal and answer is written before it counts.
            pool: who evaluates.
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
            recorded: the proposals that the journal holds already.

        Raises:
            ValueError: a worker holds other checkpoints, data or versions than the run; or a reward fails on the
                pre-trained model's completions, or gives the same to all of them.
        """
        self.proposals = {key: list(value) for key, value in recorded.items()}
        self.progress.shards_expected = forecast(self.plan, self.ledger).shards
        self.progress.shards_done = self.progress.shards_asked = len(self.ledger.answers)
        self._drive(self.plan.references, References({}, {}))
        known = references(self.plan, self.ledger, "val")
        check_rewards(self.ledger, known)
        self._enter("search")
        judged = self._drive(self.plan.searched, known)
        self._enter("test")
        self._confirm(judged)

    def _enter(self, phase: str) -> None:
        self.progress.phase, self.progress.latest = phase, ()
        self._watch(self.progress)

    def _search(self, group: Group, refs: References) -> GroupSearch:
        recorded = self.proposals.setdefault(group.key, [])
        return GroupSearch(self, group, refs, recorded, proposer(group, self.plan.spec))

    @property
    def has_room(self) -> bool:
        """Whether the workers would soon run out of candidates that were asked for."""
        return self._open < max(_LEAST_AHEAD, _AHEAD * self._workers)

    def _drive(self, groups: Iterable[Group], refs: References) -> dict[GroupKey, list[Candidate]]:
        """Work groups to their end, each as soon as what it derives from has chosen; what became of each."""
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
                self._absorb_until_news()
        return judged

    def _absorb_until_news(self) -> None:
        """Pass answers on until a candidate is complete or a worker has joined: before that no search can go on."""
        before = self._open, self._workers
        while (self._open, self._workers) == before:
            self._absorb()

    def _confirm(self, judged: Mapping[GroupKey, list[Candidate]]) -> None:
        """Score on test, once, what was chosen on validation; of curves of which nothing is chosen, every point."""
        wanted = [(g.recipe({}), tuple(g.roles)) for g in self.plan.references]
        for group in self.plan.searched:
            found = judged[group.key]
            chosen = choose(found)
            if group.test_all:
                wanted += [(c.recipe, tuple(group.roles)) for c in found if c.values is not None]
            elif chosen is not None and group.kind != "mask":
                wanted.append((chosen.recipe, tuple(group.roles)))
        for recipe, tasks in dict.fromkeys(wanted):
            self.request(recipe, tasks, "test")
        while self._open:
            self._absorb()

    def propose(self, group: Group, proposal: Proposal) -> None:
        """Journal a proposal before anything is evaluated for it."""
        self._journal.proposal(group.key, proposal)

    def judged(self, group: GroupKey, candidate: Candidate) -> None:
        """Take note of a candidate that is complete."""
        self.progress.candidates_done += 1
        if candidate.values is not None:
            self.progress.best[group] = max(self.progress.best.get(group, float("-inf")), sum(candidate.values))

    def request(self, recipe: Recipe, tasks: Iterable[str], split: str) -> Ticket:
        """Ask for what is not known yet, and not asked for yet, of a recipe's shards."""
        wanted = self._uncached(self.ledger.missing(recipe, tasks, split))
        ticket = Ticket({r.key for r in wanted})
        self._open += not ticket.done
        new = [r for r in wanted if r.key not in self._tickets]
        for key in ticket.missing:
            self._tickets.setdefault(key, []).append(ticket)
        self.progress.shards_asked += len(new)
        self._pool.submit(new)
        return ticket

    def _uncached(self, wanted: list[EvalRequest]) -> list[EvalRequest]:
        """Those of the requests that the scores of other runs do not answer."""
        if self._cache is None:
            return wanted
        cached = [s for r in wanted if (s := self._cache.get(r)) is not None]
        self._keep(cached)
        self.progress.from_cache += len(cached)
        self.progress.shards_done += len(cached)
        self.progress.shards_asked += len(cached)
        return [r for r in wanted if r.key not in self.ledger.answers]

    def _keep(self, answers: list[ShardScore] | list[ShardScore | Failure]) -> None:
        """Journal answers, then count them as known."""
        self._journal.answers(answers)
        self.ledger.answers.update((a.request.key, a) for a in answers)

    def _check_workers(self, workers: list[WorkerInfo], answers: list[ShardScore | Failure]) -> None:
        """Refuse a worker that holds something else before any answer of it is journaled or cached."""
        if len(workers) == self._workers and self._checked.issuperset(a.worker for a in answers):
            return
        self._workers = len(workers)
        for worker in workers:
            if worker.name not in self._checked:
                self.ledger.identity.check(worker)
                self._checked.add(worker.name)

    def _absorb(self) -> None:
        """Wait for answers and pass them on."""
        answers, workers = self._pool.wait(timeout=1.0), self._pool.workers
        self._check_workers(workers, answers)
        self._keep(answers)
        if self._cache is not None:
            self._cache.add(a for a in answers if isinstance(a, ShardScore))
        for answer in answers:
            key = answer.request.key
            for ticket in self._tickets.pop(key, []):
                ticket.missing.discard(key)
                self._open -= ticket.done
            self.progress.shards_done += 1
            self.progress.shards_evaluated += 1
            self.progress.failures += isinstance(answer, Failure)
        self.progress.latest, self.progress.workers = answers, workers
        self._watch(self.progress)
