"""A pool of Ray actors: each holds models and data on its device; a lost one is replaced, its shards go elsewhere."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipeline.messages import Failure, WorkerInfo
from pipeline.pool import A, Evaluator, describe, failure_kind
from pipeline.request_queue import Q, RequestQueue

log = logging.getLogger(__name__)

#: Requests in flight for each actor: the second is there when the first is done, so no actor waits for the driver.
_IN_FLIGHT = 2
#: Losses for each actor, without one answer in between, after which the pool gives up: the fault is not the shard's. A
#: node that is taken away loses all of its actors at once, which is no such fault.
_MAX_LOST_IN_A_ROW = 4


@dataclass(frozen=True, slots=True)
class ActorShape:
    """How many actors, and what each asks of Ray."""

    workers: int
    num_cpus: float = 1
    num_gpus: float = 0
    retries: int = 3


class WorkersLostError(RuntimeError):
    """Workers die faster than they answer."""


class _Host(Generic[Q, A]):
    """The actor: makes its evaluator when it is first asked, and answers requests one by one.

    Not in `__init__`: Ray tells of an error there as of an actor that died, without the error itself.
    """

    def __init__(self, make: Callable[[str], Evaluator[Q, A]], name: str) -> None:
        self._make, self._name = make, name

    def info(self) -> WorkerInfo:
        self._evaluator = self._make(self._name)
        return self._evaluator.info()

    def evaluate(self, request: Q) -> A:
        return self._evaluator.evaluate(request)


@dataclass
class _Actor(Generic[Q]):
    name: str
    handle: Any
    info: WorkerInfo | None = None
    outstanding: dict[Any, Q | None] = field(default_factory=dict)


class RayPool(Generic[Q, A]):
    """Actors made by `make(name)`, which Ray ships to them; it runs in the actor and loads everything once."""

    def __init__(self, make: Callable[[str], Evaluator[Q, A]], shape: ActorShape, kind: str = "worker") -> None:
        """Start the actors, KIND-0, KIND-1, ...; Ray must be initialised. They load while the caller goes on."""
        self._make, self._kind = make, kind
        self._shape = shape
        self._queue = RequestQueue[Q]()
        self._lost: Counter[Q] = Counter()
        self._lost_in_a_row = 0
        self._started = 0
        self._ready: list[A | Failure] = []
        self._actors = [self._start() for _ in range(shape.workers)]
        self._known: dict[str, WorkerInfo] = {}

    @property
    def workers(self) -> list[WorkerInfo]:
        """Workers that have loaded so far, lost ones included."""
        return list(self._known.values())

    def _start(self) -> _Actor[Q]:
        name = f"{self._kind}-{self._started}"
        self._started += 1
        options = {"num_cpus": self._shape.num_cpus, "num_gpus": self._shape.num_gpus, "max_restarts": 0}
        handle: Any = ray.remote(_Host).options(**options).remote(self._make, name)
        actor = _Actor[Q](name, handle)
        actor.outstanding[handle.info.remote()] = None
        return actor

    def submit(self, requests: Iterable[Q]) -> None:
        """Queue requests and hand out as many as the loaded actors can take."""
        self._queue.put(requests)
        self._hand_out()

    def _hand_out(self) -> None:
        """Fill every loaded actor, one request each in turn so that the first does not take them all."""
        for depth in range(1, _IN_FLIGHT + 1):
            for actor in self._actors:
                while actor.info is not None and len(actor.outstanding) < depth:
                    request = self._queue.take(actor.name)
                    if request is None:
                        return
                    actor.outstanding[actor.handle.evaluate.remote(request)] = request

    def _busy(self) -> bool:
        return bool(self._queue) or any(r is not None for a in self._actors for r in a.outstanding.values())

    def wait(self, timeout: float | None = None) -> list[A | Failure]:
        """Answers that have arrived, at least one unless nothing is outstanding or `timeout` seconds have passed.

        Raises:
            WorkersLostError: actors are lost one after the other without an answer in between.
            ValueError: an actor could not load, or loaded other checkpoints or data than the first.
        """
        while not self._ready and self._busy():
            owners = {ref: actor for actor in self._actors for ref in actor.outstanding}
            done, _ = ray.wait(list(owners), num_returns=1, timeout=timeout)
            if not done:
                break
            # Everything else that is ready too, without waiting: one journal write serves them all.
            done, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
            for ref in done:
                self._receive(owners[ref], ref)
            self._hand_out()
        answers, self._ready = self._ready, []
        return answers

    def _receive(self, actor: _Actor[Q], ref: Any) -> None:
        if ref not in actor.outstanding:  # the actor was found to be lost by another of its refs
            return
        request = actor.outstanding[ref]
        try:
            answer = ray.get(ref)
        # An application's error is a RayTaskError that is also of the original type; so it must be looked for first.
        except RayTaskError as error:
            del actor.outstanding[ref]
            cause = error.cause if isinstance(error.cause, BaseException) else error
            if request is None:
                raise ValueError(f"{actor.name} could not load: {describe(cause)}") from error
            self._ready.append(Failure(request.asked, failure_kind(cause), describe(cause), actor.name))
        except RayError as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:  # what was shipped cannot be read there
                raise ValueError(f"{actor.name} could not start: {str(error).strip().splitlines()[-1]}") from error
            self._replace(actor, error)
        else:
            del actor.outstanding[ref]
            if request is None:  # having loaded is no answer: it may die of every shard
                self._welcome(actor, answer)
            else:
                self._lost_in_a_row = 0
                self._ready.append(answer)

    def _welcome(self, actor: _Actor[Q], info: WorkerInfo) -> None:
        first = next(iter(self._known.values()), info)
        if (first.fingerprint, first.tasks, first.numerics) != (info.fingerprint, info.tasks, info.numerics):
            raise ValueError(
                f"{info.name} ({info.device}) loaded other checkpoints, data or versions than {first.name} "
                f"({first.device}): {info.fingerprint}, {info.numerics} against {first.fingerprint}, {first.numerics}: "
                "all nodes must see the same files and have the same packages"
            )
        actor.info = self._known[actor.name] = info

    def _replace(self, actor: _Actor[Q], error: BaseException) -> None:
        """The actor is lost: its requests go first in the queue, those lost too often become failures."""
        log.warning("%s was lost (%s); starting another one", actor.name, describe(error))
        self._lost_in_a_row += 1
        if self._lost_in_a_row > _MAX_LOST_IN_A_ROW * max(2, self._shape.workers):
            raise WorkersLostError(
                f"{self._lost_in_a_row} workers were lost one after the other without an answer; the last, "
                f"{actor.name}: {describe(error)}: is there enough memory for one worker? What was scored is kept"
            )
        requests = [r for r in actor.outstanding.values() if r is not None]
        actor.outstanding = {}
        self._queue.forget(actor.name)
        self._actors[self._actors.index(actor)] = self._start()
        ray.kill(actor.handle)
        # Only the request at the front was being evaluated; the one behind it is not to blame.
        for request in requests[:1]:
            self._lost[request] += 1
        again = [r for r in requests if self._lost[r] <= self._shape.retries]
        self._ready += [
            Failure(
                r.asked, "lost", f"its worker was lost {self._lost[r]} times; the last: {describe(error)}", actor.name
            )
            for r in requests
            if r not in again
        ]
        self._queue.put_first(reversed(again))

    def close(self) -> None:
        """Kill the actors."""
        for actor in self._actors:
            ray.kill(actor.handle)
        self._actors = []
