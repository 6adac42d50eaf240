"""The protocols of a pool of workers and of the evaluators that it runs."""

from collections.abc import Iterable
from typing import Protocol

from typing_extensions import TypeVar

from pipeline.messages import EvalRequest, Failure, PoolRequest, ShardScore, WorkerInfo

#: A pool's requests and answers.
Q = TypeVar("Q", bound=PoolRequest, default=EvalRequest)
A = TypeVar("A", default=ShardScore)
_Request = TypeVar("_Request", bound=PoolRequest, default=EvalRequest, contravariant=True)
_Answer = TypeVar("_Answer", default=ShardScore)
_Evaluated = TypeVar("_Evaluated", default=ShardScore, covariant=True)


class Evaluator(Protocol[_Request, _Evaluated]):
    """Holds models and data, and answers one request at a time."""

    def info(self) -> WorkerInfo:
        """Return what this evaluator has loaded."""
        ...

    def evaluate(self, request: _Request) -> _Evaluated:
        """Answer one request; the pool turns any exception into a `Failure`."""
        ...


class Pool(Protocol[_Request, _Answer]):
    """Workers behind one queue. Every submitted request is answered exactly once, in any order.

    Example:
        >>> pool = LocalPool(Worker("local", spec))
        >>> pool.submit(requests)
        >>> while answers := pool.wait():
        ...     for answer in answers:  # a ShardScore or a Failure
        ...         journal.write(answer)
        >>> pool.close()
    """

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers that have loaded so far."""
        ...

    def submit(self, requests: Iterable[_Request]) -> None:
        """Queue requests."""
        ...

    def wait(self, timeout: float | None = None) -> list[_Answer | Failure]:
        """Return answers that have arrived: at least one unless none is outstanding or `timeout` seconds pass."""
        ...

    def close(self) -> None:
        """Stop the workers; unanswered requests are dropped."""
        ...
