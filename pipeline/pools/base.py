"""A pool of workers: the protocol, and the pool of one worker in this process."""

from collections.abc import Iterable
from typing import Protocol

from typing_extensions import TypeVar

from pipeline.messages import EvalRequest, Failure, FailureKind, PoolRequest, ShardScore, WorkerInfo

A = TypeVar("A", default=ShardScore)
_Asked = TypeVar("_Asked", bound=PoolRequest, default=EvalRequest, contravariant=True)
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
