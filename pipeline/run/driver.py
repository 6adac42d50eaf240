"""The loop of a run: references first, then the search, then the test."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from graphlib import TopologicalSorter

from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan, proposer
from pipeline.pools.base import Pool
from pipeline.records.journal import GroupKey, Journal
from pipeline.records.ledger import Ledger
from pipeline.run.forecast import forecast
from pipeline.run.group_search import GroupSearch
from pipeline.run.progress import RunProgress
from pipeline.run.requests import ShardRequests
from pipeline.run.selection import Candidate, References, check_rewards, choose, complete, references
from pipeline.storage.caches.scores import ScoreCache
from search.proposer import Proposal


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
        self.progress = RunProgress()
        self._requests = ShardRequests(ledger, journal, pool, cache, self.progress)
        self._watch = watch
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
        check_rewards(self.plan, self.ledger, refs)
        self._enter("search")
        judged = self._drive(self.plan.searched, refs)
        self._enter("test")
        self._test(judged)

    def _enter(self, phase: str) -> None:
        self.progress.phase, self.progress.latest = phase, ()
        self._watch(self.progress)

    def _drive(self, groups: Iterable[Group], refs: References) -> dict[GroupKey, list[Candidate]]:
        """Search each group once its parents have chosen, and return the candidates of all.

        A search begins when the workers need candidates: a step looks at tens of searches, not at all of a large plan.
        """
        planned = {g.key: g for g in groups}
        order = TopologicalSorter({key: g.derivation.parents if g.derivation else () for key, g in planned.items()})
        order.prepare()
        ready, active = deque[GroupKey](), list[GroupSearch]()
        judged: dict[GroupKey, list[Candidate]] = {}
        while order.is_active():
            ready += order.get_ready()
            for search in active:
                search.advance()
            while ready and self._requests.needs_candidates:
                key = ready.popleft()
                if (group := complete(planned[key], judged)) is not None:
                    active.append(self._begin(group, refs))
                else:
                    judged[key] = []
                    order.done(key)
            done = [s for s in active if s.done]
            active = [s for s in active if not s.done]
            judged |= {s.group.key: s.candidates for s in done}
            order.done(*(s.group.key for s in done))
            if active and not done:
                self._absorb_until_change()
        return judged

    def _begin(self, group: Group, refs: References) -> GroupSearch:
        recorded = self.proposals.setdefault(group.key, [])
        search = GroupSearch(self._requests, group, self.plan, refs, recorded, proposer(group, self.plan.spec))
        search.advance()
        return search

    def _absorb_until_change(self) -> None:
        """Absorb answers until a candidate is complete or a worker joins: before that no search can advance."""
        before = self._requests.state
        while self._requests.state == before:
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
            self._requests.request(recipe, tasks, "test")
        while self._requests.open:
            self._absorb()

    def _absorb(self) -> None:
        self._requests.absorb()
        self._watch(self.progress)
