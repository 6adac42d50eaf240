"""Put several short requests of a candidate into one message, whose cost would otherwise be a part of their time.

- A message has one candidate, and about `_SECONDS` of work by the usual times of its tasks; before any is known, one
  request. Requests that take longer than that are sent one by one.
- A message has at most its share of what is queued, so that all actors finish at about the same time.
- A request that lost an actor is sent alone. A message of several that loses its actor is taken apart: nobody knows at
  which request it died, so that none is charged with the loss, and each is then sent alone.
"""

from math import ceil
from typing import Generic

from pipeline.pools.actor import Actor, InFlight
from pipeline.pools.base import Q
from pipeline.pools.fault_attribution import SuspectRequests
from pipeline.pools.queue import RequestQueue
from pipeline.pools.stragglers import AnswerTimes

#: Seconds of work in a message. A message costs 1 to 2 ms, which is less than 1 % of that; what a lost actor or a
#: killed driver repeats is not noticed.
_SECONDS = 0.25


class Dispatch(Generic[Q]):
    """Takes what is sent next from the queue."""

    def __init__(self, queue: RequestQueue[Q], suspects: SuspectRequests[Q], times: AnswerTimes) -> None:
        """Take the pool's queue, suspects and usual times, which the pool keeps up to date."""
        self._queue, self._suspects, self._times = queue, suspects, times

    def take(self, actor: Actor[Q], places: int) -> InFlight[Q] | None:
        """Return the next message for `actor`; None if nothing is queued, or the next request must wait to be alone.

        Args:
            actor: that can take one more message.
            places: messages that all actors can have at once.
        """
        most = ceil(len(self._queue) / places)
        first = self._queue.take(actor.name)
        if first is None:
            return None
        if first in self._suspects:
            if not actor.outstanding:
                return InFlight((first,))
            self._queue.put_first([first])
            return None
        requests, seconds = [first], self._usual(first)
        while len(requests) < most and (following := self._queue.following(actor.name)) is not None:
            seconds += self._usual(following)
            if seconds > _SECONDS or following in self._suspects:
                break
            taken = self._queue.take(actor.name)
            assert taken is following
            requests.append(following)
        return InFlight(tuple(requests))

    def _usual(self, request: Q) -> float:
        usual = self._times.usual(request.origin.task)
        return _SECONDS if usual is None else usual
