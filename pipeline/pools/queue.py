"""Which request a free worker gets next: one for the candidate it holds, else a candidate that nobody holds."""

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Generic

from typing_extensions import TypeVar

from pipeline.messages import EvalRequest, PoolRequest

Q = TypeVar("Q", bound=PoolRequest, default=EvalRequest)


class RequestQueue(Generic[Q]):
    """Pending requests by candidate, in the order the candidates came.

    Each step costs the same for ten workers and for thousands: candidates that nobody holds wait in a heap by their
    place in the order, and an entry that is out of date is passed over when it comes up.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._pending: OrderedDict[str, deque[Q]] = OrderedDict()
        self._count = 0
        self._held: dict[str, str] = {}
        self._holders = Counter[str]()
        self._places: dict[str, int] = {}
        self._unheld: list[tuple[int, str]] = []
        self._first, self._last = 0, 0

    def __len__(self) -> int:
        """Number of pending requests."""
        return self._count

    def put(self, requests: Iterable[Q]) -> None:
        """Add requests behind those of their candidate."""
        for request in requests:
            candidate = request.recipe_id
            queue = self._pending.get(candidate)
            if queue is None:
                self._last += 1
                queue = self._place(candidate, self._last)
            queue.append(request)
            self._count += 1

    def put_first(self, requests: Iterable[Q]) -> None:
        """Add requests whose worker was lost in front of everything."""
        for request in requests:
            candidate = request.recipe_id
            self._first -= 1
            self._place(candidate, self._first).appendleft(request)
            self._pending.move_to_end(candidate, last=False)
            self._count += 1

    def put_last(self, candidate: str) -> None:
        """Others come before what is pending of this candidate."""
        if candidate in self._pending:
            self._last += 1
            self._place(candidate, self._last)
            self._pending.move_to_end(candidate)

    def _place(self, candidate: str, place: int) -> deque[Q]:
        self._places[candidate] = place
        self._offer(candidate)
        return self._pending.setdefault(candidate, deque())

    def _offer(self, candidate: str) -> None:
        """Whoever is free may start the candidate, unless somebody holds it."""
        if not self._holders[candidate]:
            heapq.heappush(self._unheld, (self._places[candidate], candidate))

    def take(self, worker: str) -> Q | None:
        """The next request for `worker`, None when nothing is pending.

        A rebuild costs more than a shard's overhead, so a worker stays with its candidate while that has shards left,
        then starts the oldest candidate that no other worker holds, and only then helps another one.
        """
        if not self._pending:
            return None
        held = self._held.get(worker)
        if held is None or held not in self._pending:
            self._let_go(worker)
            held = self._next()
            self._held[worker] = held
            self._holders[held] += 1
        queue = self._pending[held]
        request = queue.popleft()
        self._count -= 1
        if not queue:
            del self._pending[held], self._places[held]
        return request

    def _next(self) -> str:
        """The oldest candidate that nobody holds, or else the oldest."""
        while self._unheld:
            place, candidate = heapq.heappop(self._unheld)
            if self._places.get(candidate) == place and not self._holders[candidate]:
                return candidate
        return next(iter(self._pending))

    def _let_go(self, worker: str) -> None:
        held = self._held.pop(worker, None)
        if held is None:
            return
        self._holders[held] -= 1
        if not self._holders[held]:
            del self._holders[held]
            if held in self._pending:
                self._offer(held)

    def forget(self, worker: str) -> None:
        """The worker is gone, and with it what it held."""
        self._let_go(worker)
