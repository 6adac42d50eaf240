"""A Ray actor that runs an evaluator, and the driver's record of it."""

import errno
import importlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic

from pipeline.errors import describe
from pipeline.messages import WorkerInfo
from pipeline.pools.base import A, Evaluator, Q
from pipeline.pools.failures import is_broken
from pipeline.quick_imports import quick_imports


class EvaluatorActor(Generic[Q, A]):
    """The class of a pool's Ray actors: makes its evaluator at the first call of `info`, then answers requests.

    The evaluator is not made in `__init__`: Ray reports an exception there as the actor's death, without the exception.
    """

    def __init__(self, make: Callable[[str], Evaluator[Q, A]], name: str) -> None:
        """Keep what makes the evaluator."""
        self._make, self._name = make, name
        self._evaluator: Evaluator[Q, A] | None = None

    def import_module(self, name: str) -> None:
        """Import a module that the evaluator will need; an error is left to `info`."""
        with suppress(Exception), quick_imports():
            importlib.import_module(name)

    def info(self) -> WorkerInfo:
        """Return what the evaluator has loaded; the driver asks again after it could not reach this actor."""
        with _portable_errors():
            if self._evaluator is None:
                self._evaluator = self._make(self._name)
            return self._evaluator.info()

    def evaluate(self, request: Q) -> A:
        """Answer one request."""
        assert self._evaluator is not None
        with _portable_errors():
            return self._evaluator.evaluate(request)

    def evaluate_all(self, requests: Sequence[Q]) -> list[A | Exception]:
        """Answer requests in turn; the error of one is its answer, unless this process must be replaced."""
        found: list[A | Exception] = []
        for request in requests:
            try:
                found.append(self.evaluate(request))
            except Exception as error:
                if is_broken(error):
                    raise
                found.append(error)
        return found


@contextmanager
def _portable_errors() -> Iterator[None]:
    """Replace an error that cannot be read back from its pickle by a RuntimeError with its text.

    Many classes whose constructor takes two arguments cannot. To the driver, that would look like the actor's death.
    """
    try:
        yield
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(describe(error)) from error
        raise


@dataclass(eq=False)
class InFlight(Generic[Q]):
    """A message: requests of one candidate that were sent to one actor, or to two if the first was slow.

    Attributes:
        requests: answered in this order, and together.
        actors: the actors that have them and have not answered.
        answered: whether an answer has arrived.
        warned: whether the log has a warning that it takes long.
    """

    requests: tuple[Q, ...]
    actors: list["Actor[Q]"] = field(default_factory=list)
    answered: bool = False
    warned: bool = False


@dataclass(eq=False)
class Actor(Generic[Q]):
    """The driver's record of an actor.

    Attributes:
        name: unique within the pool.
        handle: Ray's handle.
        info: what it has loaded; None before.
        node: id of its node, known once it has loaded.
        outstanding: Ray's reference -> message, in the order of the calls; None for a call of `info`. The actor works
            on the first.
        since: when it began with the first.
        unreachable_since: when it could not be reached for the first time since its last answer.
        removed: whether the group has removed it.
    """

    name: str
    handle: Any
    info: WorkerInfo | None = None
    node: str | None = None
    outstanding: dict[Any, InFlight[Q] | None] = field(default_factory=dict)
    since: float = 0.0
    unreachable_since: float | None = None
    removed: bool = False

    @property
    def current(self) -> InFlight[Q] | None:
        """The message that it is evaluating."""
        return next(iter(self.outstanding.values()), None)


def advice(error: BaseException) -> str:
    """Return what a user can do about an error that keeps a node from working."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there, or set LINES_SWEEP_CACHE to a folder on a larger disk when Ray is started"
    if isinstance(cause, ImportError) or "No module named" in str(cause):
        return "install the same packages there: pip install -c constraints.txt -e ."
    if isinstance(cause, FileNotFoundError):
        return "put it where that node sees it"
    return "fix that"
