"""The search of one group: asks its proposer, has candidates evaluated, and tells it their outcomes."""

import sys

from pipeline.plan.groups import Group
from pipeline.plan.plan import Plan
from pipeline.run.evaluations import Evaluations
from pipeline.run.requests import ShardRequests
from pipeline.run.selection import Candidate, References
from pipeline.run.walk import Walk
from search.greedy import GreedyProposer
from search.proposer import FixedProposer, Outcome, Proposal, Proposer


class GroupSearch:
    """The search of one group, from the end of its recorded proposals.

    Proposal n is asked once outcomes 0 to n - K are told, in order, even if later ones have arrived (K = in_flight).
    So the points are the same for any number of workers, any timing and after any crash. A fixed list of points does
    not depend on outcomes and is asked as the workers need it; if candidates may be stopped, at once, since the first
    that are scored are spread over the list.
    """

    def __init__(
        self,
        requests: ShardRequests,
        group: Group,
        plan: Plan,
        refs: References,
        proposals: list[Proposal],
        proposer: Proposer,
    ) -> None:
        """Start or resume a group.

        Args:
            requests: has candidates evaluated.
            group: the group with its template.
            plan: of the run.
            refs: the values that normalise its objectives.
            proposals: the recorded proposals; grows, after those that followed from lost outcomes are dropped.
            proposer: a new one.
        """
        self._requests = requests
        self.group = group
        self._proposals = proposals
        self._proposer = proposer
        self._window = _window(group, proposer)
        self._drop_after_lost(Walk.of(group, plan, tuple(proposals), requests.ledger, refs).settle())
        self._evaluations = Evaluations(requests, Walk.of(group, plan, proposals, requests.ledger, refs))
        self.candidates: list[Candidate] = []
        self._told = 0
        self._replayed = not proposals
        self._exhausted = False

    @property
    def done(self) -> bool:
        """Whether everything was asked and answered."""
        return self._exhausted and len(self.candidates) == len(self._proposals)

    def _drop_after_lost(self, known: Walk) -> None:
        """Drop proposals that followed from an outcome that is not known: its shard was lost and is scored again."""
        first = next((i for i in range(len(self._proposals)) if i not in known.final), len(self._proposals))
        if self._window != sys.maxsize and len(self._proposals) > first + self._window:
            del self._proposals[first + self._window :]
            # Journaled again: a repeated proposal ends the list there, else the dropped ones would count later.
            self._requests.propose(self.group, self._proposals[-1])

    def advance(self) -> None:
        """Ask and tell as far as the answers allow."""
        self._evaluations.advance()
        while not self._exhausted and self._ask():
            if not self._asks_all:
                self._evaluations.advance()
        self._evaluations.advance()
        while (found := self._evaluations.candidate(len(self.candidates))) is not None:
            self.candidates.append(found)

    def _ask(self) -> bool:
        """Ask for the next proposal if it is due; return whether there was one."""
        due = max(0, len(self._proposals) - self._window + 1)
        # The last recorded proposal was asked after one outcome less than is due now.
        if not self._replayed and not self._replay(max(0, due - 1)):
            return False
        if not self._tell_until(due) or not self._has_room():
            return False
        proposal = self._proposer.ask()
        if proposal is None:
            self._exhausted = True
            return False
        self._requests.propose(self.group, proposal)
        self._proposals.append(proposal)
        return True

    @property
    def _asks_all(self) -> bool:
        return self._window == sys.maxsize and self._evaluations.walk.stops

    def _has_room(self) -> bool:
        """Whether to ask for another point: of a sampler when it has enough outcomes, of a list when it is needed."""
        return self._window != sys.maxsize or self._asks_all or self._requests.needs_candidates

    def _replay(self, told: int) -> bool:
        outcomes = [self._outcome(i) for i in range(told)]
        if None in outcomes:
            return False
        self._proposer.replay(self._proposals, [o for o in outcomes if o is not None])
        self._told, self._replayed = told, True
        return True

    def _tell_until(self, due: int) -> bool:
        while self._told < due:
            if (outcome := self._outcome(self._told)) is None:
                return False
            self._proposer.tell(outcome)
            self._told += 1
        return True

    def _outcome(self, number: int) -> Outcome | None:
        found = self._evaluations.candidate(number)
        return None if found is None else Outcome(number, found.told)


def _window(group: Group, proposer: Proposer) -> int:
    """Return how many proposals may lack an outcome: all of a fixed list, one of a greedy search."""
    if isinstance(proposer, FixedProposer):
        return sys.maxsize
    return 1 if isinstance(proposer, GreedyProposer) else group.search.in_flight
