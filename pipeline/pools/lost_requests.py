"""What becomes of the requests of lost actors: they are sent again, until they were lost too often."""

from typing import Generic

from pipeline.errors import describe
from pipeline.messages import Failure
from pipeline.pools.actor import Actor, InFlight
from pipeline.pools.base import Q
from pipeline.pools.fault_attribution import LossCounter, SuspectRequests
from pipeline.pools.queue import RequestQueue


class LostRequests(Generic[Q]):
    """Tells requests that are sent again from those that are given up."""

    def __init__(self, queue: RequestQueue[Q], suspects: SuspectRequests[Q], losses: LossCounter) -> None:
        """Take the pool's queue, suspects and losses, which the pool keeps up to date."""
        self._queue, self._suspects, self._losses = queue, suspects, losses

    def sort(self, job: InFlight[Q], actor: Actor[Q], error: BaseException) -> tuple[list[Failure], list[Q]]:
        """Return the failures of requests of a message that were lost too often, and the other requests.

        Raises:
            WorkersLostError: if one candidate after the other lost actors.
        """
        given_up: list[Failure] = []
        left: list[Q] = []
        for request in job.requests:
            if losses := self._suspects.losses_over_limit(request):
                self._give_up(request)
                cause = f"its worker was lost {losses:g} times; the last: {describe(error)}"
                given_up.append(Failure(request.origin, "lost", cause, actor.name))
            else:
                left.append(request)
        return given_up, left

    def _give_up(self, request: Q) -> None:
        """Attribute losses to a request, not to nodes; others of its candidate may be deadly too, and go last."""
        if nodes := self._suspects.give_up(request):
            self._queue.put_last(request.recipe_id)
            self._losses.attribute_to_request(request.recipe_id, nodes)
