"""The queue of a pool: a free worker gets a request of the candidate it holds, or of one that no worker holds."""

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Generic

from pipeline.pools.base import Q


class RequestQueue(Generic[Q]):
    """Pending requests by candidate, in the order in which the candidates arrived.

    Each step costs the same for ten workers and for thousands: candidates that no worker holds wait in a heap, ordered
    by position, and outdated entries of the heap are skipped.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._pending: OrderedDict[str, deque[Q]] = OrderedDict()
        self._count = 0
        self._held: dict[str, str] = {}
        self._holders = Counter[str]()
        self._positions: dict[str, int] = {}
        self._unheld: list[tuple[int, str]] = []
        self._first, self._last = 0, 0

    def __len__(self) -> int:
        """Return the number of pending requests."""
        return self._count

    def put(self, requests: Iterable[Q]) -> None:
        """Add requests behind the others of their candidate."""
        for request in requests:
            candidate = request.recipe_id
            queue = self._pending.get(candidate)
            if queue is None:
                self._last += 1
                queue = self._move(candidate, self._last)
            queue.append(request)
            self._count += 1

    def put_first(self, requests: Iterable[Q]) -> None:
        """Add requests whose worker was lost in front of all others."""
        for request in requests:
            candidate = request.recipe_id
            self._first -= 1
            self._move(candidate, self._first).appendleft(request)
            self._pending.move_to_end(candidate, last=False)
            self._count += 1

    def put_last(self, candidate: str) -> None:
        """Move the pending requests of a candidate behind all others."""
        if candidate in self._pending:
            self._last += 1
            self._move(candidate, self._last)
            self._pending.move_to_end(candidate)

    def _move(self, candidate: str, position: int) -> deque[Q]:
        self._positions[candidate] = position
        self._offer(candidate)
        return self._pending.setdefault(candidate, deque())

    def _offer(self, candidate: str) -> None:
        """Let the next free worker start the candidate, unless a worker holds it."""
        if not self._holders[candidate]:
            heapq.heappush(self._unheld, (self._positions[candidate], candidate))

    def take(self, worker: str) -> Q | None:
        """Return the next request for `worker`, None if nothing is pending.

        Rebuilding a candidate's weights costs more than a request. So a worker stays with its candidate while that has
        requests left, then starts the oldest candidate that no worker holds, and only then helps another worker.
        """
        if not self._pending:
            return None
        held = self._held.get(worker)
        if held is None or held not in self._pending:
            self.forget(worker)
            held = self._next()
            self._held[worker] = held
            self._holders[held] += 1
        queue = self._pending[held]
        request = queue.popleft()
        self._count -= 1
        if not queue:
            del self._pending[held], self._positions[held]
        return request

    def following(self, worker: str) -> Q | None:
        """Return what `take` would return next if it is of the candidate that `worker` holds, and leave it there."""
        queue = self._pending.get(self._held.get(worker, ""))
        return queue[0] if queue else None

    def _next(self) -> str:
        """Return the oldest candidate that no worker holds, or else the oldest."""
        while self._unheld:
            position, candidate = heapq.heappop(self._unheld)
            if self._positions.get(candidate) == position and not self._holders[candidate]:
                return candidate
        return next(iter(self._pending))

    def forget(self, worker: str) -> None:
        """Note that a worker holds no candidate: it is gone, or takes another one."""
        held = self._held.pop(worker, None)
        if held is None:
            return
        self._holders[held] -= 1
        if not self._holders[held]:
            del self._holders[held]
            if held in self._pending:
                self._offer(held)
