"""A pool of one worker in this process, without Ray."""

from collections.abc import Iterable
from typing import Generic

from pipeline.errors import describe
from pipeline.messages import Failure, WorkerInfo
from pipeline.pools.base import A, Evaluator, Q
from pipeline.pools.failures import failure_kind
from pipeline.pools.queue import RequestQueue


class LocalPool(Generic[Q, A]):
    """A `Pool` of one evaluator in this process; it gives the same answers as a `RayPool`."""

    def __init__(self, evaluator: Evaluator[Q, A]) -> None:
        """Take over an evaluator that has loaded."""
        self._evaluator = evaluator
        self._info = evaluator.info()
        self._queue = RequestQueue[Q]()

    @property
    def workers(self) -> list[WorkerInfo]:
        """The one worker."""
        return [self._info]

    def submit(self, requests: Iterable[Q]) -> None:
        """Queue requests."""
        self._queue.put(requests)

    def wait(self, timeout: float | None = None) -> list[A | Failure]:
        """Evaluate the next request in this thread; `timeout` cannot interrupt it."""
        request = self._queue.take(self._info.name)
        if request is None:
            return []
        try:
            return [self._evaluator.evaluate(request)]
        except Exception as error:
            return [Failure(request.origin, failure_kind(error), describe(error), self._info.name)]

    def close(self) -> None:
        """Drop the queued requests."""
        self._queue = RequestQueue[Q]()
