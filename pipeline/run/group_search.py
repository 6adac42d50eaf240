"""The search of one group: asks its proposer, has candidates evaluated, and tells it their outcomes."""

import sys

from pipeline.plan.groups import Group, validation_tasks
from pipeline.run.requests import ShardRequests, Ticket
from pipeline.run.selection import Candidate, References, answered, judge
from search.greedy import GreedyProposer
from search.proposer import FixedProposer, Outcome, Proposal, Proposer


class GroupSearch:
    """The search of one group, from the end of its recorded proposals.

    Proposal n is asked once outcomes 0 to n - K are told, in order, even if later ones have arrived (K = in_flight).
    So the points are the same for any number of workers, any timing and after any crash. A fixed list of points does
    not depend on outcomes and is asked as the workers need it.
    """

    def __init__(
        self, requests: ShardRequests, group: Group, refs: References, proposals: list[Proposal], proposer: Proposer
    ) -> None:
        """Start or resume a group.

        Args:
            requests: has candidates evaluated.
            group: the group with its template.
            refs: the values that normalise its objectives.
            proposals: the recorded proposals; grows, after those that followed from lost outcomes are dropped.
            proposer: a new one.
        """
        self._requests = requests
        self.group = group
        self._refs = refs
        self._proposals = proposals
        self._proposer = proposer
        self._window = _window(group, proposer)
        self._drop_after_lost()
        self._tickets = [self._request(p) for p in proposals]
        self.candidates: list[Candidate] = []
        self._told = 0
        self._replayed = not proposals
        self._exhausted = False

    @property
    def done(self) -> bool:
        """Whether everything was asked and answered."""
        return self._exhausted and len(self.candidates) == len(self._tickets)

    def _drop_after_lost(self) -> None:
        """Drop proposals that followed from an outcome that is not known: its shard was lost and is scored again."""
        known = (answered(self.group, p, self._requests.ledger) for p in self._proposals)
        first = next((i for i, is_known in enumerate(known) if not is_known), len(self._proposals))
        if len(self._proposals) > first + self._window:
            del self._proposals[first + self._window :]
            # Journaled again: a repeated proposal ends the list there, else the dropped ones would count later.
            self._requests.propose(self.group, self._proposals[-1])

    def _request(self, proposal: Proposal) -> Ticket:
        return self._requests.request(self.group.recipe(proposal.point), validation_tasks(self.group), "val")

    def advance(self) -> None:
        """Ask and tell as far as the answers allow."""
        while not self._exhausted and self._ask():
            pass
        while len(self.candidates) < len(self._tickets) and self._tickets[len(self.candidates)].done:
            self._judge(len(self.candidates))

    def _ask(self) -> bool:
        """Ask for the next proposal if it is due; return whether there was one."""
        due = max(0, len(self._proposals) - self._window + 1)
        # The last recorded proposal was asked after one outcome less than is due now.
        if not self._replayed and not self._replay(max(0, due - 1)):
            return False
        if not self._tell_until(due) or (self._window == sys.maxsize and not self._requests.needs_candidates):
            return False
        proposal = self._proposer.ask()
        if proposal is None:
            self._exhausted = True
            return False
        self._requests.propose(self.group, proposal)
        self._proposals.append(proposal)
        self._tickets.append(self._request(proposal))
        return True

    def _replay(self, told: int) -> bool:
        if not all(t.done for t in self._tickets[:told]):
            return False
        self._proposer.replay(self._proposals, [self._outcome(i) for i in range(told)])
        self._told, self._replayed = told, True
        return True

    def _tell_until(self, due: int) -> bool:
        while self._told < due:
            if not self._tickets[self._told].done:
                return False
            self._proposer.tell(self._outcome(self._told))
            self._told += 1
        return True

    def _outcome(self, number: int) -> Outcome:
        return Outcome(number, self._judge(number).values)

    def _judge(self, number: int) -> Candidate:
        """Return the candidate of a proposal; its shards, and those of all proposals before it, are answered."""
        while len(self.candidates) <= number:
            proposal = self._proposals[len(self.candidates)]
            self.candidates.append(judge(self.group, proposal, self._requests.ledger, self._refs))
            self._requests.count(self.group.key, self.candidates[-1])
        return self.candidates[number]


def _window(group: Group, proposer: Proposer) -> int:
    """Return how many proposals may lack an outcome: all of a fixed list, one of a greedy search."""
    if isinstance(proposer, FixedProposer):
        return sys.maxsize
    return 1 if isinstance(proposer, GreedyProposer) else group.search.in_flight
