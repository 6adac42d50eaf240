"""One worker in this process: no Ray, the same answers."""

from collections.abc import Iterable
from typing import Generic

from pipeline.errors import describe
from pipeline.messages import Failure, WorkerInfo
from pipeline.pools.base import A, Evaluator, failure_kind
from pipeline.pools.queue import Q, RequestQueue


class LocalPool(Generic[Q, A]):
    """One evaluator in this process: no Ray, the same answers."""

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
        """Evaluate the next request here and now; `timeout` cannot interrupt it."""
        request = self._queue.take(self._info.name)
        if request is None:
            return []
        try:
            return [self._evaluator.evaluate(request)]
        except Exception as error:
            return [Failure(request.origin, failure_kind(error), describe(error), self._info.name)]

    def close(self) -> None:
        """Drop what is queued."""
        self._queue = RequestQueue[Q]()
