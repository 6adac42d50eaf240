"""An actor of a pool, as the driver knows it and as it runs; and what to do about a node on which it cannot."""

import errno
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

from pipeline.errors import describe
from pipeline.messages import WorkerInfo
from pipeline.pools.base import A, Evaluator
from pipeline.pools.queue import Q


class Host(Generic[Q, A]):
    """The actor: makes its evaluator when it is first asked, and answers requests one by one.

    Not in `__init__`: Ray tells of an error there as of an actor that died, without the error itself.
    """

    def __init__(self, make: Callable[[str], Evaluator[Q, A]], name: str) -> None:
        """Keep what makes the evaluator."""
        self._make, self._name = make, name
        self._evaluator: Evaluator[Q, A] | None = None

    def info(self) -> WorkerInfo:
        """What it has loaded; asked again where it was out of reach."""
        with _portable_errors():
            if self._evaluator is None:
                self._evaluator = self._make(self._name)
            return self._evaluator.info()

    def evaluate(self, request: Q) -> A:
        """Answer one request."""
        assert self._evaluator is not None
        with _portable_errors():
            return self._evaluator.evaluate(request)


@contextmanager
def _portable_errors() -> Iterator[None]:
    """An error whose class cannot be read back from its pickle, as many cannot that take two arguments, as text.

    To the driver such a one would look like the end of the actor.
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
    """A request on its way, on one actor or on two.

    Attributes:
        request: what is asked.
        on: where it is.
        done: whether it is answered.
        told: whether people know that it takes long.
    """

    request: Q
    on: list["Actor[Q]"] = field(default_factory=list)
    done: bool = False
    told: bool = False


@dataclass(eq=False)
class Actor(Generic[Q]):
    """An actor, and what it has been asked and has not answered yet, in order.

    Attributes:
        name: unique within the pool.
        handle: Ray's.
        info: what it has loaded.
        node: where it runs, known once it has loaded.
        outstanding: the first is being evaluated; None: it was asked what it has loaded.
        since: when it began with the first.
        silent: since when it has been out of reach.
        gone: whether it was let go.
    """

    name: str
    handle: Any
    info: WorkerInfo | None = None
    node: str | None = None
    outstanding: dict[Any, InFlight[Q] | None] = field(default_factory=dict)
    since: float = 0.0
    silent: float | None = None
    gone: bool = False

    @property
    def front(self) -> InFlight[Q] | None:
        """What it is evaluating."""
        return next(iter(self.outstanding.values()), None)


def advice(error: BaseException) -> str:
    """What to do about what keeps a node from working."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there, or have LINES_SWEEP_CACHE name a folder on a larger disk when Ray is started"
    if isinstance(cause, ImportError) or "No module named" in str(cause):
        return "install the same packages there: pip install -c constraints.txt -e ."
    if isinstance(cause, FileNotFoundError):
        return "put it where that node sees it"
    return "mend that"
