"""A pool of workers: the protocol, and the pool of one worker in this process."""

from collections.abc import Iterable
from typing import Generic, Protocol

from typing_extensions import TypeVar

from pipeline.messages import Addressed, EvalRequest, Failure, FailureKind, ShardScore, WorkerInfo
from pipeline.pools.queue import Q, RequestQueue

A = TypeVar("A", default=ShardScore)
_Asked = TypeVar("_Asked", bound=Addressed, default=EvalRequest, contravariant=True)
_Answer = TypeVar("_Answer", default=ShardScore)
_Given = TypeVar("_Given", default=ShardScore, covariant=True)


class Evaluator(Protocol[_Asked, _Given]):
    """What answers requests: holds models and data, one request at a time."""

    def info(self) -> WorkerInfo:
        """What it has loaded."""
        ...

    def evaluate(self, request: _Asked) -> _Given:
        """Score one shard; whatever it raises becomes a Failure."""
        ...


class Pool(Protocol[_Asked, _Answer]):
    """Workers behind a queue. Every request that is submitted is answered exactly once, in any order."""

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers that have loaded so far."""
        ...

    def submit(self, requests: Iterable[_Asked]) -> None:
        """Queue requests."""
        ...

    def wait(self, timeout: float | None = None) -> list[_Answer | Failure]:
        """Answers that have arrived, at least one unless nothing is outstanding or `timeout` seconds have passed."""
        ...

    def close(self) -> None:
        """Stop the workers; unanswered requests are dropped."""
        ...


class WorkersLostError(RuntimeError):
    """Workers die faster than they answer, or there is no place for one."""


def failure_kind(error: BaseException) -> FailureKind:
    """What kind of failure an evaluator's error is; by name, so that torch need not be imported here."""
    names = _names(error)
    # On the CPU torch has no type of its own for it.
    if names & {"OutOfMemoryError", "MemoryError"} or "DefaultCPUAllocator: " in str(error):
        return "out_of_memory"
    if names & {"NonFiniteError", "NonFiniteOutput"}:
        return "non_finite"
    return "application"


def is_broken(error: BaseException) -> bool:
    """Whether the process is of no use any more: after an error of the device CUDA raises it again at every call."""
    if failure_kind(error) == "out_of_memory":
        return False
    return "AcceleratorError" in _names(error) or "CUDA error: " in str(error)


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def describe(error: BaseException) -> str:
    """The error's type and first line, for people."""
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0][:500]}"


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
            return [Failure(request.asked, failure_kind(error), describe(error), self._info.name)]

    def close(self) -> None:
        """Drop what is queued."""
        self._queue = RequestQueue[Q]()
