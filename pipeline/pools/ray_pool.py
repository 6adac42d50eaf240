"""A pool of Ray actors: each holds models and data on its device; what a lost or slow one was asked goes elsewhere."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    UnserializableException,
)

from pipeline.cluster.capacity import ActorShape
from pipeline.errors import describe
from pipeline.messages import Failure, WorkerInfo
from pipeline.pools.actor import Actor, InFlight
from pipeline.pools.actor_group import Crew
from pipeline.pools.base import A, Evaluator, failure_kind, is_broken
from pipeline.pools.fault_attribution import Suspicion
from pipeline.pools.queue import Q, RequestQueue
from pipeline.pools.stragglers import Pace

log = logging.getLogger(__name__)

#: Requests in flight for each actor: the second is there when the first is done, so no actor waits for the driver.
_IN_FLIGHT = 2
#: Seconds from one look at the cluster to the next, and from one look for overdue answers to the next.
_LOOK, _OVERDUE = 3.0, 0.25
#: Seconds for which an answer that Ray says is there may take to be read: large ones lie in their node's store.
_READ = 5.0
#: How much a request is blamed for the end of a node, or of the way to it, where the end of a process counts 1.
_LIGHT = 0.25


class RayPool(Generic[Q, A]):
    """Actors made by `make(name)`, which Ray ships to them; it runs in the actor and loads everything once."""

    def __init__(
        self,
        make: Callable[[str], Evaluator[Q, A]],
        shape: ActorShape,
        kind: str = "worker",
        check: Callable[[WorkerInfo], None] | None = None,
    ) -> None:
        """Start the actors, KIND-0, KIND-1, ...; Ray must be initialised. They load while the caller goes on.

        Args:
            make: makes the evaluator of the actor with that name.
            shape: how many actors, of what size.
            kind: what they are called.
            check: raises ValueError for what must not be used; the node that has loaded it is left out.
        """
        self._queue = RequestQueue[Q]()
        self._suspicion = Suspicion[Q](shape.retries)
        self._unanswered = 0
        self._ready: list[A | Failure] = []
        self._pace = Pace()
        self._crew = Crew[Q, A](make, shape, kind, check)
        #: Actors that can take a request, by how many they have.
        self._free: list[dict[Actor[Q], None]] = [{} for _ in range(_IN_FLIGHT)]
        self._look_at = self._overdue_at = 0.0

    @property
    def workers(self) -> list[WorkerInfo]:
        """Workers that have loaded so far, lost ones included."""
        return list(self._crew.known.values())

    def submit(self, requests: Iterable[Q]) -> None:
        """Queue requests and hand out as many as the loaded actors can take."""
        before = len(self._queue)
        self._queue.put(requests)
        self._unanswered += len(self._queue) - before
        self._hand_out()

    def _hand_out(self) -> None:
        """Fill every loaded actor, one request each in turn so that the first does not take them all."""
        for free in self._free:
            while free:
                actor = next(iter(free))
                request = self._queue.take(actor.name)
                if request is None:
                    return
                if actor.outstanding and request in self._suspicion:
                    self._queue.put_first([request])
                    return
                self._send(actor, InFlight(request))

    def _send(self, actor: Actor[Q], job: InFlight[Q]) -> None:
        self._crew.owe(actor, actor.handle.evaluate.remote(job.request), job)
        self._place(actor)

    def _place(self, actor: Actor[Q]) -> None:
        """Among those that can take a request, or not: one that is busy with what is answered already gets no more."""
        for free in self._free:
            free.pop(actor, None)
        usable = actor.info is not None and actor.silent is None and actor in self._crew
        front = actor.front
        closed = front is not None and (front.done or front.request in self._suspicion)
        if usable and not closed and len(actor.outstanding) < _IN_FLIGHT:
            self._free[len(actor.outstanding)][actor] = None

    def wait(self, timeout: float | None = None) -> list[A | Failure]:
        """Answers that have arrived, at least one unless nothing is outstanding or `timeout` seconds have passed.

        Raises:
            WorkersLostError: actors are lost one after the other without an answer in between.
            ValueError: no actor could load, or none what it should.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._ready and self._unanswered:
            self._follow()
            self._receive_some(max(0.0, min(deadline - time.monotonic(), self._patience())))
            self._hand_out()
            self._copy_overdue()
            if time.monotonic() >= deadline:
                break
        answers, self._ready = self._ready, []
        return answers

    def _patience(self) -> float:
        return _OVERDUE if self._free[0] else _LOOK

    def _receive_some(self, timeout: float) -> None:
        owners = self._crew.owners
        if not owners:  # all are out of reach
            time.sleep(min(timeout, _OVERDUE))
            return
        # 0.3 us for each request that is out: 0.6 ms for 2,000.
        done, _ = ray.wait(list(owners), num_returns=1, timeout=timeout)
        if done:  # Everything else that is ready too, without waiting: one journal write serves them all.
            done, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        for ref in done:
            if ref in owners:  # else the actor was found to be lost by another of its refs
                self._receive(owners[ref], ref)

    def _receive(self, actor: Actor[Q], ref: Any) -> None:
        try:
            answer = ray.get(ref, timeout=_READ)
        except GetTimeoutError:  # its node is out of reach, of which Ray will tell
            return
        # An application's error is a RayTaskError that is also of the original type; so it must be looked for first.
        except (RayTaskError, UnserializableException) as error:
            self._failed(actor, ref, error)
        except ObjectLostError as error:
            self._answer_lost(actor, ref, error)
        except ActorUnavailableError as error:
            self._out_of_reach(actor, error)
        except RayError as error:
            self._lose(actor, error)
        else:
            job = actor.outstanding[ref]
            if job is None:  # having loaded is no answer: it may die of every shard
                self._crew.returned(actor, ref)
                self._crew.welcome(actor, answer)
            else:
                if actor.front is job:
                    self._pace.note(job.request.origin.task, time.monotonic() - actor.since)
                self._crew.returned(actor, ref)
                self._crew.answered(actor)
                self._answer(job, answer)
            self._place(actor)

    def _failed(self, actor: Actor[Q], ref: Any, error: RayError) -> None:
        told = getattr(error, "cause", None)
        cause = told if isinstance(told, BaseException) else error
        if actor.outstanding[ref] is not None and is_broken(cause):
            self._lose(actor, cause)
            return
        job = self._crew.returned(actor, ref)
        if job is None:
            self._crew.unfit(actor, f"{actor.name} could not load: {describe(cause)}", error)
        else:
            self._answer(job, Failure(job.request.origin, failure_kind(cause), describe(cause), actor.name))
        self._place(actor)

    def _answer(self, job: InFlight[Q], answer: A | Failure) -> None:
        """The first answer counts; of the same request the same is answered by whoever is asked."""
        if job.done:
            return
        job.done = True
        self._unanswered -= 1
        self._ready.append(answer)
        for other in job.on:
            self._place(other)

    def _answer_lost(self, actor: Actor[Q], ref: Any, error: ObjectLostError) -> None:
        """The answer was lost on its way; the actor is as good as before."""
        job = self._crew.returned(actor, ref)
        if job is None:
            self._crew.ask(actor)
        else:
            self._again(actor, [job], _LIGHT, error)
        self._place(actor)

    def _out_of_reach(self, actor: Actor[Q], error: ActorUnavailableError) -> None:
        """The network is cut, or the node is gone and Ray will say so: what it was asked is not waited for."""
        if actor.silent is None:
            log.warning("%s is out of reach (%s): others do its work until it is back", actor.name, describe(error))
            actor.silent = time.monotonic()
        jobs = self._crew.take_back(actor)
        self._place(actor)
        self._queue.forget(actor.name)  # else its candidate would count as in good hands, and be left to it
        self._again(actor, jobs, _LIGHT, error)

    def _lose(self, actor: Actor[Q], error: BaseException) -> None:
        """The actor is lost: its requests go first in the queue, those lost too often become failures."""
        if isinstance(error, RuntimeEnvSetupError) or (isinstance(error, RayActorError) and error.actor_init_failed):
            # What was shipped cannot be read there.
            lines = str(error).strip().splitlines()
            self._crew.unfit(actor, f"{actor.name} could not start: {lines[-1]}", error)
            return
        jobs = self._crew.remove(actor)
        self._place(actor)
        self._queue.forget(actor.name)
        log.warning("%s was lost (%s)", actor.name, describe(error))
        to_blame = self._crew.died(actor, error)
        self._again(actor, jobs, 1.0 if to_blame else _LIGHT, error)
        self._crew.fill()
        self._look_at = 0.0

    def _again(self, actor: Actor[Q], jobs: list[InFlight[Q]], blame: float, error: BaseException) -> None:
        """What was not answered goes first in the queue, unless a copy of it is on another actor."""
        self._suspicion.lost([job.request for job in jobs], actor.node, blame)
        again = []
        for job in jobs:
            if job.done or (job.on and not isinstance(error, TimeoutError)):  # else copy after copy would hang
                continue
            if lost := self._suspicion.too_often(job.request):
                self._condemn(job.request)
                cause = f"its worker was lost {lost:g} times; the last: {describe(error)}"
                self._answer(job, Failure(job.request.origin, "lost", cause, actor.name))
            elif not job.on:
                again.append(job.request)
        self._queue.put_first(reversed(again))

    def _condemn(self, request: Q) -> None:
        """It is given up: actors died of it, not of those nodes; others of its candidate may do the same, and wait."""
        if nodes := self._suspicion.condemn(request):
            self._queue.put_last(request.recipe_id)
            self._crew.deaths.pardon(request.recipe_id, nodes)

    def _follow(self) -> None:
        """Every few seconds: actors on nodes that have joined, none on those that have left."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK
        for actor in list(self._crew.actors):
            self._watch(actor)
        for actor in self._crew.look():
            self._lose(actor, RayActorError(error_msg="its node has left, or is out of reach"))
        for actor in self._crew.surplus():
            jobs = self._crew.remove(actor)
            self._place(actor)
            self._queue.forget(actor.name)
            self._again(actor, jobs, 0.0, RayActorError())
        self._crew.fill()

    def _watch(self, actor: Actor[Q]) -> None:
        """Tell of a request that takes far longer than usual; replace the process of one that takes longer still."""
        front = actor.front
        if front is None or actor.silent is not None:
            return
        asked, seconds = front.request.origin, time.monotonic() - actor.since
        long, hangs = self._pace.limits(asked.task)
        what = f"shard {asked.shard} of {asked.task}, {asked.split}, candidate {asked.recipe_id[:12]}"
        if seconds > hangs:
            self._lose(actor, TimeoutError(f"it has been at {what} for {seconds:.0f} s"))
        elif seconds > long and not front.told:
            front.told = True
            log.warning("%s has been at %s for %.0f s, where %.1f s are usual; its process is replaced after %.0f s",
                        actor.name, what, seconds, self._pace.usual(asked.task), hangs)  # fmt: skip

    def _copy_overdue(self) -> None:
        """Give idle actors, when nothing is queued, copies of what others take too long for: the latest first."""
        now = time.monotonic()
        if not self._free[0] or self._queue or now < self._overdue_at:
            return
        self._overdue_at = now + _OVERDUE
        for actor, job in zip(list(self._free[0]), self._pace.late(self._crew.actors, now), strict=False):
            log.info("%s gets a copy of what %s takes long for", actor.name, job.on[0].name)
            self._send(actor, job)

    def close(self) -> None:
        """Kill the actors."""
        self._crew.close()
