"""A pool of Ray actors; the requests of lost and slow actors are sent to others."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic

import ray
from ray import exceptions

from pipeline.cluster.capacity import ActorShape
from pipeline.errors import describe
from pipeline.messages import Failure, WorkerInfo
from pipeline.pools.actor import Actor, InFlight
from pipeline.pools.actor_group import ActorGroup
from pipeline.pools.base import A, Evaluator, Q
from pipeline.pools.dispatch import Dispatch
from pipeline.pools.failures import failure_kind, is_broken
from pipeline.pools.fault_attribution import SuspectRequests
from pipeline.pools.lost_requests import LostRequests
from pipeline.pools.queue import RequestQueue
from pipeline.pools.stragglers import AnswerTimes

log = logging.getLogger(__name__)

#: Messages in flight for each actor: the second is there when the first is done, so no actor waits for the driver.
_IN_FLIGHT = 2
#: Seconds between looks at the cluster, and between looks for overdue requests.
_POLL, _OVERDUE = 3.0, 0.25
#: Seconds that reading an answer may take once Ray reports it: large answers stay in their node's object store.
_READ = 5.0
#: Weight of a loss by a failed node or network in what is attributed to a request; the death of a process weighs 1.
_LIGHT = 0.25


class RayPool(Generic[Q, A]):
    """A `Pool` of Ray actors, each with one evaluator that holds models and data on its device.

    Example:
        >>> with local_ray():
        ...     pool = RayPool(partial(Worker, spec=spec), ActorShape(workers=4, num_cpus=2))
        ...     pool.submit(requests)
        ...     answers = pool.wait()
    """

    def __init__(
        self,
        make: Callable[[str], Evaluator[Q, A]],
        shape: ActorShape,
        kind: str = "worker",
        check: Callable[[WorkerInfo], None] | None = None,
        held: str = "",
    ) -> None:
        """Start the actors KIND-0, KIND-1, ... on the initialised Ray; they load while the caller continues.

        Args:
            make: makes the evaluator of the actor with the given name; it is pickled and runs in the actor.
            shape: how many actors, with which resources.
            kind: the first part of the actors' names.
            check: raises ValueError if what an actor has loaded must not be used; its node is then excluded.
            held: a module that the actors import while they wait for `load`; "" to load at once.
        """
        self._queue = RequestQueue[Q]()
        self._suspects = SuspectRequests[Q](shape.retries)
        self._unanswered = 0
        self._ready: list[A | Failure] = []
        self._times = AnswerTimes()
        self._dispatch = Dispatch(self._queue, self._suspects, self._times)
        self._group = ActorGroup[Q, A](make, shape, kind, check, held)
        self._lost = LostRequests(self._queue, self._suspects, self._group.losses)
        #: Actors that can take a request, by the number of messages that they have.
        self._free: list[dict[Actor[Q], None]] = [{} for _ in range(_IN_FLIGHT)]
        self._poll_at = self._overdue_at = 0.0

    def load(self, check: Callable[[WorkerInfo], None]) -> None:
        """Have the actors of a pool that is held load; `check` as in the constructor."""
        self._group.load(check)

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers that have loaded so far, lost ones included."""
        return list(self._group.known.values())

    @property
    def actors(self) -> list[Actor[Q]]:
        """The actors that were started and not removed."""
        return self._group.actors

    def submit(self, requests: Iterable[Q]) -> None:
        """Queue requests and send as many as the loaded actors can take."""
        before = len(self._queue)
        self._queue.put(requests)
        self._unanswered += len(self._queue) - before
        self._send_queued()

    def _send_queued(self) -> None:
        """Fill every loaded actor, one message each in turn so that the first does not take them all."""
        for free in self._free:
            while free:
                actor = next(iter(free))
                job = self._dispatch.take(actor, _IN_FLIGHT * len(self._group.actors))
                if job is None:
                    return
                self._send(actor, job)

    def _send(self, actor: Actor[Q], job: InFlight[Q]) -> None:
        first, *others = job.requests
        evaluate = actor.handle.evaluate_all.remote(job.requests) if others else actor.handle.evaluate.remote(first)
        self._group.add_call(actor, evaluate, job)
        self._update_free(actor)

    def _update_free(self, actor: Actor[Q]) -> None:
        """Note whether an actor can take a request; not while its current one is suspect or answered by another."""
        for free in self._free:
            free.pop(actor, None)
        usable = actor.info is not None and actor.unreachable_since is None and not actor.removed
        current = actor.current
        closed = current is not None and (current.answered or current.requests[0] in self._suspects)
        if usable and not closed and len(actor.outstanding) < _IN_FLIGHT:
            self._free[len(actor.outstanding)][actor] = None

    def wait(self, timeout: float | None = None) -> list[A | Failure]:
        """Return answers that have arrived: at least one unless none is outstanding or `timeout` seconds have passed.

        Raises:
            WorkersLostError: if actors are lost one after the other without an answer in between.
            ValueError: if no actor could load, or none what it should.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while not self._ready and self._unanswered:
            self._poll()
            self._receive_ready(max(0.0, min(deadline - time.monotonic(), _OVERDUE if self._free[0] else _POLL)))
            self._send_queued()
            self._copy_overdue()
            if time.monotonic() >= deadline:
                break
        answers, self._ready = self._ready, []
        return answers

    def _receive_ready(self, timeout: float) -> None:
        owners = self._group.owners
        if not owners:  # all are unreachable
            time.sleep(min(timeout, _OVERDUE))
            return
        # 0.3 us for each outstanding call: 0.6 ms for 2,000.
        done, _ = ray.wait(list(owners), num_returns=1, timeout=timeout)
        if done:  # All others that are ready too, without waiting: one journal write serves them all.
            done, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        for ref in done:
            if ref in owners:  # else another call has shown that the actor is lost
                self._receive(owners[ref], ref)

    def _receive(self, actor: Actor[Q], ref: Any) -> None:
        try:
            answer = ray.get(ref, timeout=_READ)
        except exceptions.GetTimeoutError:  # its node is unreachable, which Ray will report
            return
        # An application's error is a RayTaskError that is also of the original type, so it must be caught first.
        except (exceptions.RayTaskError, exceptions.UnserializableException) as error:
            self._failed(actor, ref, error)
        except exceptions.ObjectLostError as error:
            self._answer_lost(actor, ref, error)
        except exceptions.ActorUnavailableError as error:
            self._unreachable(actor, error)
        except exceptions.RayError as error:
            self._lose(actor, error)
        else:
            self._returned(actor, ref, answer)

    def _returned(self, actor: Actor[Q], ref: Any, answer: Any) -> None:
        is_current, seconds = actor.current is actor.outstanding[ref], time.monotonic() - actor.since
        job = self._group.end_call(actor, ref)
        if job is None:  # having loaded is not an answer: the actor may still die of every request
            self._group.loaded(actor, answer)
        else:
            if is_current:
                for request in job.requests:
                    self._times.add(request.origin.task, seconds / len(job.requests))
            self._group.answered(actor)
            answers = zip(job.requests, answer if len(job.requests) > 1 else [answer], strict=True)
            self._answer(job, [_failure(r, a, actor) if isinstance(a, Exception) else a for r, a in answers])
        self._update_free(actor)

    def _failed(self, actor: Actor[Q], ref: Any, error: exceptions.RayError) -> None:
        original = getattr(error, "cause", None)
        cause = original if isinstance(original, BaseException) else error
        if actor.outstanding[ref] is not None and is_broken(cause):
            self._lose(actor, cause)
            return
        job = self._group.end_call(actor, ref)
        if job is None:
            self._group.load_failed(actor, f"{actor.name} could not load: {describe(cause)}", error)
        elif len(job.requests) > 1:  # no request's own error: for example, Ray could not send the answers
            self._suspects.actor_lost([job.requests], actor.node, 1.0)
            if not job.answered and not job.actors:
                self._queue.put_first(reversed(job.requests))
        else:
            self._answer(job, [_failure(job.requests[0], cause, actor)])
        self._update_free(actor)

    def _answer(self, job: InFlight[Q], answers: list[A | Failure]) -> None:
        """Keep the first answers; every worker gives the same answer to a request."""
        if job.answered:
            return
        job.answered = True
        self._unanswered -= len(answers)
        self._ready += answers
        for other in job.actors:
            self._update_free(other)

    def _answer_lost(self, actor: Actor[Q], ref: Any, error: exceptions.ObjectLostError) -> None:
        """Send the request again: the answer was lost on its way, the actor is intact."""
        job = self._group.end_call(actor, ref)
        if job is None:
            self._group.request_info(actor)
        else:
            self._retry(actor, [job], _LIGHT, error)
        self._update_free(actor)

    def _unreachable(self, actor: Actor[Q], error: exceptions.ActorUnavailableError) -> None:
        """Send an actor's requests to others: the network is cut, or its node is gone, which Ray will report."""
        if actor.unreachable_since is None:
            log.warning("%s is out of reach (%s): others do its work until it is back", actor.name, describe(error))
            actor.unreachable_since = time.monotonic()
        jobs = self._group.take_back(actor)
        self._update_free(actor)
        self._queue.forget(actor.name)  # else the queue would leave its candidate to it
        self._retry(actor, jobs, _LIGHT, error)

    def _lose(self, actor: Actor[Q], error: BaseException) -> None:
        """Replace a lost actor; its requests go first in the queue, or become failures after too many losses."""
        if isinstance(error, exceptions.RuntimeEnvSetupError) or (
            isinstance(error, exceptions.RayActorError) and error.actor_init_failed
        ):
            # The node cannot read the code that was sent.
            lines = str(error).strip().splitlines()
            self._group.load_failed(actor, f"{actor.name} could not start: {lines[-1]}", error)
            return
        jobs = self._remove(actor)
        log.warning("%s was lost (%s)", actor.name, describe(error))
        died = self._group.died(actor, error)
        self._retry(actor, jobs, 1.0 if died else _LIGHT, error)
        self._group.start_missing()
        self._poll_at = 0.0

    def _remove(self, actor: Actor[Q]) -> list[InFlight[Q]]:
        jobs = self._group.remove(actor)
        self._update_free(actor)
        self._queue.forget(actor.name)
        return jobs

    def _retry(self, actor: Actor[Q], jobs: list[InFlight[Q]], weight: float, error: BaseException) -> None:
        """Put unanswered requests first in the queue, unless another actor has a copy."""
        if jobs:
            self._suspects.actor_lost([job.requests for job in jobs], actor.node, weight)
        again: list[Q] = []
        for job in jobs:
            # After a hang the copy counts as lost too, else copy after copy would hang.
            if job.answered or (job.actors and not isinstance(error, TimeoutError)):
                continue
            given_up, left = self._lost.sort(job, actor, error)
            several = len(job.requests) > 1  # they are sent again one by one, whatever a copy answers
            again += left if several or not job.actors else []
            if given_up or several:
                self._answer(job, [*given_up])
        self._queue.put_first(reversed(again))

    def _poll(self) -> None:
        """Every few seconds: replace actors that hang or whose nodes have left, and use nodes that have joined."""
        if time.monotonic() < self._poll_at:
            return
        self._poll_at = time.monotonic() + _POLL
        for actor in list(self._group.actors):
            if hangs := self._times.hangs(actor, time.monotonic()):
                self._lose(actor, TimeoutError(hangs))
        for actor in self._group.poll():
            self._lose(actor, exceptions.RayActorError(error_msg="its node has left, or is out of reach"))
        for actor in self._group.surplus():
            self._retry(actor, self._remove(actor), 0.0, exceptions.RayActorError())
        self._group.start_missing()

    def _copy_overdue(self) -> None:
        """If nothing is queued, give idle actors copies of the most overdue requests of others."""
        now = time.monotonic()
        if not self._free[0] or self._queue or now < self._overdue_at:
            return
        self._overdue_at = now + _OVERDUE
        for actor, job in zip(list(self._free[0]), self._times.to_copy(self._group.actors, now), strict=False):
            log.info("%s gets a copy of a slow request of %s", actor.name, job.actors[0].name)
            self._send(actor, job)

    def close(self) -> None:
        """Kill the actors."""
        self._group.close()


def _failure(request: Q, cause: BaseException, actor: Actor[Q]) -> Failure:
    return Failure(request.origin, failure_kind(cause), describe(cause), actor.name)
