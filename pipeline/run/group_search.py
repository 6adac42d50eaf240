"""One group's search: asks its proposer, has candidates evaluated, tells what came of them."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline.plan.groups import Group, validation_tasks
from pipeline.recipe import Recipe
from pipeline.records.journal import GroupKey, ShardKey
from pipeline.records.ledger import Ledger
from pipeline.run.selection import Candidate, References, answered, judge
from search.greedy import GreedyProposer
from search.proposer import FixedProposer, Outcome, Proposal, Proposer


@dataclass(slots=True)
class Ticket:
    """The shards that are still missing of a recipe on some tasks of a split."""

    missing: set[ShardKey]

    @property
    def done(self) -> bool:
        """Whether every shard is answered, by a score or a failure."""
        return not self.missing


class Evaluations(Protocol):
    """Who has candidates evaluated: the driver."""

    ledger: Ledger

    @property
    def has_room(self) -> bool:
        """Whether the workers would soon run out of candidates that were asked for."""
        ...

    def propose(self, group: Group, proposal: Proposal) -> None:
        """Journal a proposal before anything is evaluated for it."""
        ...

    def request(self, recipe: Recipe, tasks: Iterable[str], split: str) -> Ticket:
        """Ask for what is not known yet of a recipe's shards."""
        ...

    def judged(self, group: GroupKey, candidate: Candidate) -> None:
        """Take note of a candidate that is complete."""
        ...


class GroupSearch:
    """One group, from wherever its recorded proposals end.

    Proposal n is asked once outcomes 0 to n - K have been told, in order, whatever else has arrived (K = in_flight):
    so the points are the same for any number of workers and any timing, and after any crash. A fixed list of points
    does not depend on outcomes, so it is asked as the workers need it.
    """

    def __init__(
        self,
        driver: Evaluations,
        group: Group,
        refs: References,
        proposals: list[Proposal],
        proposer: Proposer,
    ) -> None:
        """Start, or take up again, a group.

        Args:
            driver: has candidates evaluated.
            group: what is searched, with its template.
            refs: what its objectives are normalised by.
            proposals: what was proposed already; grows, and first loses what followed from outcomes to be had anew.
            proposer: fresh.
        """
        self._driver = driver
        self.group = group
        self._refs = refs
        self._proposals = proposals
        self._proposer = proposer
        self._window = _window(group, proposer)
        self._forget()
        self._tickets = [self._start(p) for p in proposals]
        self.candidates: list[Candidate] = []
        self._told = 0
        self._replayed = not proposals
        self._exhausted = False

    @property
    def done(self) -> bool:
        """Whether everything was asked and answered."""
        return self._exhausted and len(self.candidates) == len(self._tickets)

    def _forget(self) -> None:
        """Drop proposals that were asked after an outcome that is not known: a shard that was lost is scored anew."""
        known = (answered(self.group, p, self._driver.ledger) for p in self._proposals)
        first = next((i for i, is_known in enumerate(known) if not is_known), len(self._proposals))
        if len(self._proposals) > first + self._window:
            del self._proposals[first + self._window :]
            # Journaled, lest what is dropped counts again once the outcome is known: there this proposal ends the list.
            self._driver.propose(self.group, self._proposals[-1])

    def _start(self, proposal: Proposal) -> Ticket:
        return self._driver.request(self.group.recipe(proposal.point), validation_tasks(self.group), "val")

    def advance(self) -> None:
        """Ask and tell as far as the answers so far allow."""
        while not self._exhausted and self._ask():
            pass
        while len(self.candidates) < len(self._tickets) and self._tickets[len(self.candidates)].done:
            self._judge(len(self.candidates))

    def _ask(self) -> bool:
        """Ask once more, if it is time to."""
        due = max(0, len(self._proposals) - self._window + 1)
        # When the last recorded proposal was asked, one outcome less than is due now had been told.
        if not self._replayed and not self._replay(max(0, due - 1)):
            return False
        if not self._tell_until(due) or (self._window == sys.maxsize and not self._driver.has_room):
            return False
        proposal = self._proposer.ask()
        if proposal is None:
            self._exhausted = True
            return False
        self._driver.propose(self.group, proposal)
        self._proposals.append(proposal)
        self._tickets.append(self._start(proposal))
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
        """The candidate of a proposal whose shards, and those of all before it, are answered."""
        while len(self.candidates) <= number:
            proposal = self._proposals[len(self.candidates)]
            self.candidates.append(judge(self.group, proposal, self._driver.ledger, self._refs))
            self._driver.judged(self.group.key, self.candidates[-1])
        return self.candidates[number]


def _window(group: Group, proposer: Proposer) -> int:
    """How many proposals may be without an outcome: all of a fixed list, one of a greedy search."""
    if isinstance(proposer, FixedProposer):
        return sys.maxsize
    return 1 if isinstance(proposer, GreedyProposer) else group.search.in_flight
