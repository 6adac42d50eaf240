"""A pool that is opened for its first request."""

from collections.abc import Callable, Iterable
from typing import Generic

from pipeline.messages import Failure, WorkerInfo
from pipeline.pools.base import A, Pool, Q


class DeferredPool(Generic[Q, A]):
    """A `Pool` whose workers start with its first request: a run whose scores are all known needs none.

    Example:
        >>> pool = DeferredPool(lambda: LocalPool(Worker("local", spec)))
    """

    def __init__(self, open_pool: Callable[[], Pool[Q, A]]) -> None:
        """Take what opens the pool."""
        self._open = open_pool
        self._pool: Pool[Q, A] | None = None

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers that have loaded so far."""
        return [] if self._pool is None else self._pool.workers

    def submit(self, requests: Iterable[Q]) -> None:
        """Queue requests; the first opens the pool, and raises what that raises."""
        if not (new := list(requests)):
            return
        if self._pool is None:
            self._pool = self._open()
        self._pool.submit(new)

    def wait(self, timeout: float | None = None) -> list[A | Failure]:
        """Return answers that have arrived, as the pool does."""
        return [] if self._pool is None else self._pool.wait(timeout)

    def close(self) -> None:
        """Stop the workers, if they were started."""
        if self._pool is not None:
            self._pool.close()
