"""Has the candidates of a group evaluated: each in full at once, or stage by stage until one is stopped."""

from pipeline.plan.groups import validation_tasks
from pipeline.run.requests import ShardRequests, Ticket
from pipeline.run.selection import Candidate
from pipeline.run.walk import IN_FULL, Walk
from search.proposer import Proposal


class Evaluations:
    """The requests for the candidates of a group.

    Attributes:
        walk: decides about the candidates.
    """

    def __init__(self, requests: ShardRequests, walk: Walk) -> None:
        """Start without requests."""
        self._requests = requests
        self.walk = walk
        self._tickets: dict[int, Ticket] = {}
        self._asked = self._passed = 0  # without stops: these many proposals are requested, and decided

    def candidate(self, number: int) -> Candidate | None:
        """Return a candidate that is final; None before."""
        return self.walk.final.get(number)

    def advance(self) -> None:
        """Decide about candidates whose answers are there, and request what is needed next.

        A candidate in progress comes before a new one, and a search before those that begin later: a worker then stays
        with few candidates, whose weights it has combined already.
        """
        while self.walk.stops and any([self._advance(number) for number in self.walk.ready()]):
            pass
        if not self.walk.stops:
            self._advance_in_order()

    def _advance_in_order(self) -> None:
        """Request all that is new, and decide in the order of proposals: a step looks at one candidate, not at all."""
        for number in range(self._asked, len(self.walk.proposals)):
            if self.candidate(number) is None:
                self._advance(number)
        self._asked = len(self.walk.proposals)
        while self._passed < self._asked and (self.candidate(self._passed) or self._advance(self._passed)):
            self._passed += 1

    def _advance(self, number: int) -> bool:
        """Return whether a candidate has become final."""
        ticket = self._tickets.get(number)
        if ticket is not None and not ticket.done:
            return False
        while (stage := self.walk.advance(number)) is not None:
            if number not in self._tickets and stage != IN_FULL and not self._requests.has_room:
                return False
            ticket = self._tickets[number] = self._request(self.walk.proposals[number], stage)
            if not ticket.done:
                return False
        self._tickets.pop(number, None)
        self._requests.decided(self.walk.final[number])
        return True

    def _request(self, proposal: Proposal, stage: int) -> Ticket:
        group = self.walk.group
        recipe, tasks = group.recipe(proposal.point), validation_tasks(group)
        if stage == IN_FULL:
            return self._requests.request(recipe, tasks, "val")
        assert self.walk.order is not None, "stages are those of an order"
        return self._requests.request(recipe, tasks, self.walk.order.name, stage)
