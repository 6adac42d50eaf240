"""Which request a free worker gets next: one for the candidate it holds, else a candidate that nobody holds."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Generic

from typing_extensions import TypeVar

from pipeline.messages import Addressed, EvalRequest

Q = TypeVar("Q", bound=Addressed, default=EvalRequest)


class RequestQueue(Generic[Q]):
    """Pending requests by candidate, in the order the candidates came."""

    def __init__(self) -> None:
        """Start empty."""
        self._pending: OrderedDict[str, deque[Q]] = OrderedDict()
        self._held: dict[str, str] = {}

    def __len__(self) -> int:
        """Number of pending requests."""
        return sum(len(q) for q in self._pending.values())

    def put(self, requests: Iterable[Q]) -> None:
        """Add requests behind those of their candidate."""
        for request in requests:
            self._pending.setdefault(request.recipe_id, deque()).append(request)

    def put_first(self, requests: Iterable[Q]) -> None:
        """Add requests whose worker was lost in front of everything."""
        for request in requests:
            self._pending.setdefault(request.recipe_id, deque()).appendleft(request)
            self._pending.move_to_end(request.recipe_id, last=False)

    def take(self, worker: str) -> Q | None:
        """The next request for `worker`, None when nothing is pending.

        A rebuild costs more than a shard's overhead, so a worker stays with its candidate while that has shards left,
        then starts the oldest candidate that no other worker holds, and only then helps another one.
        """
        if not self._pending:
            return None
        held = self._held.get(worker)
        if held not in self._pending:
            others = {candidate for name, candidate in self._held.items() if name != worker}
            held = next((c for c in self._pending if c not in others), next(iter(self._pending)))
        assert held is not None
        self._held[worker] = held
        queue = self._pending[held]
        request = queue.popleft()
        if not queue:
            del self._pending[held]
        return request

    def forget(self, worker: str) -> None:
        """The worker is gone, and with it what it held."""
        self._held.pop(worker, None)
