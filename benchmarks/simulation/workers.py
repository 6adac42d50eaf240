"""A pool of simulated workers: the driver's time is real, the workers' is virtual.

The pool's clock advances by the driver's time since its last call, by the cost of messages through Ray, and by waiting
for the next worker to finish. So a run of a thousand workers takes only its driver's time, and its clock shows the time
on a cluster whose driver has a core like this one.
"""

import heapq
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.messages import EvalRequest, Failure, ShardScore, WorkerInfo
from pipeline.pools.queue import RequestQueue

#: Requests in flight a worker, as in `RayPool`.
_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Messages:
    """The driver's seconds for messages, measured by `python -m benchmarks.messages`.

    Attributes:
        send: to send a request, Ray's threads included.
        read: to read an answer.
        pending: of a wait, for each request in flight.
        gather: of sleep after the first answer, for each request in flight, so that one wait returns more answers.
    """

    send: float = 0.17e-3
    read: float = 0.03e-3
    pending: float = 0.45e-6
    gather: float = 0.0


@dataclass(frozen=True, slots=True)
class Service:
    """A worker's seconds to rebuild, if it holds another candidate, and to evaluate one sample."""

    rebuild: float
    sample: float


@dataclass(slots=True)
class _Worker:
    name: str
    free_at: float = 0.0
    holds: str = ""
    in_flight: int = 0


@dataclass
class Spent:
    """Totals of the workers and the driver, in seconds of the virtual clock."""

    evaluating: float = 0.0
    rebuilding: float = 0.0
    messages: float = 0.0
    waited: float = 0.0
    last_answer: float = 0.0
    sent: int = 0
    answers: int = 0
    waits: int = 0


class SimulatedPool:
    """A `Pool` that answers every request once, when its worker has finished by the virtual clock."""

    def __init__(
        self,
        infos: Sequence[WorkerInfo],
        services: Sequence[Service],
        score: Callable[[EvalRequest, str], ShardScore],
        messages: Messages = Messages(),
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """Start with loaded workers.

        Args:
            infos: one a worker.
            services: times of workers; one is drawn for each shard.
            score: computes a worker's answer; its time is not counted.
            messages: the driver's cost of messages.
            clock: the driver's clock.
        """
        self._infos = list(infos)
        self._services, self._score, self._messages, self._clock = services, score, messages, clock
        self._draw = random.Random(0)
        self._queue = RequestQueue[EvalRequest]()
        # By requests in flight: idle workers come first, as in `RayPool`.
        self._free: tuple[dict[str, _Worker], dict[str, _Worker]] = {i.name: _Worker(i.name) for i in infos}, {}
        self._events: list[tuple[float, int, _Worker, EvalRequest]] = []
        self.now, self._left = 0.0, clock()
        self.spent = Spent()

    @property
    def workers(self) -> list[WorkerInfo]:
        """All workers."""
        return self._infos

    def submit(self, requests: Iterable[EvalRequest]) -> None:
        """Queue requests, and hand out as many as workers can take."""
        self._enter()
        self._timed(lambda: self._queue.put(requests))
        self._hand_out()
        self._left = self._clock()

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        """Return the answers that are due, or else wait for the next one, at most `timeout`."""
        self._enter()
        self.spent.waits += 1
        self._charge(self._messages.pending * len(self._events))
        if self._events and self._events[0][0] > self.now:
            self._sleep_until(min(self._events[0][0], self.now + (math.inf if timeout is None else timeout)))
        if self._events and not self._free[0]:
            self._sleep_until(self.now + self._messages.gather * len(self._events))
        answers: list[ShardScore | Failure] = []
        due = self.now
        while self._events and self._events[0][0] <= due:
            answers.append(self._receive())
        self._hand_out()
        self._left = self._clock()
        return answers

    def close(self) -> None:
        """Drop all requests; the clock then shows the end of the run."""
        self._enter()
        self._queue, self._events = RequestQueue[EvalRequest](), []

    def look(self) -> float:
        """Return the virtual time during the driver's work."""
        return self.now + self._clock() - self._left

    def _sleep_until(self, then: float) -> None:
        self.spent.waited += then - self.now
        self.now = then

    def _charge(self, seconds: float) -> None:
        self.now += seconds
        self.spent.messages += seconds

    def _enter(self) -> None:
        self.now += self._clock() - self._left

    def _timed(self, work: Callable[[], EvalRequest | None]) -> EvalRequest | None:
        """Count the time of the queue, which is part of a real pool, unlike the simulation."""
        started = self._clock()
        result = work()
        self.now += self._clock() - started
        return result

    def _receive(self) -> ShardScore:
        _, _, worker, request = heapq.heappop(self._events)
        worker.in_flight -= 1
        self._free[1].pop(worker.name, None)
        self._free[worker.in_flight][worker.name] = worker
        self._charge(self._messages.read)
        self.spent.answers += 1
        self.spent.last_answer = self.now
        return self._score(request, worker.name)

    def _hand_out(self) -> None:
        """Fill the workers, one request each in turn, so that the first does not take all."""
        for depth, free in enumerate(self._free):
            while free:
                name = next(iter(free))
                request = self._timed(lambda name=name: self._queue.take(name))  # type: ignore[misc]
                if request is None:
                    return
                worker = free.pop(name)
                worker.in_flight = depth + 1
                if depth + 1 < _IN_FLIGHT:
                    self._free[depth + 1][name] = worker
                self._send(worker, request)

    def _send(self, worker: _Worker, request: EvalRequest) -> None:
        self._charge(self._messages.send)
        service = self._draw.choice(self._services)
        rebuild = 0.0 if worker.holds == request.recipe_id else service.rebuild
        worker.holds = request.recipe_id
        evaluate = service.sample * (request.stop - request.start)
        worker.free_at = max(worker.free_at, self.now) + rebuild + evaluate
        self.spent.rebuilding += rebuild
        self.spent.evaluating += evaluate
        heapq.heappush(self._events, (worker.free_at, self.spent.sent, worker, request))
        self.spent.sent += 1
