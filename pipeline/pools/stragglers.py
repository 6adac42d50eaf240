"""Find overdue requests: an idle worker gets a copy of the request, and the first answer counts."""

import logging
from collections import defaultdict, deque
from collections.abc import Iterable
from math import inf
from statistics import median

from pipeline.pools.actor import Actor, InFlight
from pipeline.pools.base import Q
from pipeline.records.sample_order import data_split

log = logging.getLogger(__name__)

#: Answers of each task whose median is the task's usual time.
_REMEMBERED = 31
#: A request is copied once it has been evaluated for this many times the usual time, and this many seconds at least.
#: Slow workers, the first request of a candidate (weights are rebuilt) and a busy driver all stay below three times the
#: usual time; a copy of a slower one is expected to be done one usual time later.
_EVALUATED = (3.0, 2.0)
#: The same for a request that waits behind another one. None of its work is done, so a copy costs nothing; but one
#: that is almost next stays with its worker, which may hold the weights.
_WAITING = (1.5, 1.0)
#: The same until a warning, and until the process is replaced because it hangs, as in a lock or on a device that does
#: not answer.
_LONG, _HANGS = (30.0, 600.0), (100.0, 3600.0)
#: Seconds until a request is copied while no task has an answer: its worker may be the slow one.
_UNKNOWN = 30.0


class AnswerTimes:
    """How long answers usually take, by task: tasks differ, shards of one task do not."""

    def __init__(self) -> None:
        """Start without answers."""
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def add(self, task: str, seconds: float) -> None:
        """Note that an answer for `task` took so many seconds."""
        self._seconds[task].append(seconds)

    def usual(self, task: str) -> float | None:
        """Return the median seconds of the task's answers, of the slowest task if it has none, None before any."""
        if known := self._seconds.get(task):
            return median(known)
        return max((median(s) for s in self._seconds.values()), default=None)

    def overdue(self, task: str, seconds: float, waits: bool = False) -> float:
        """Return the time that a request has taken over the time that it may take; it is to be copied from 1 on.

        Args:
            task: the task that its worker evaluates.
            seconds: for how long the worker has been doing so.
            waits: whether the request waits behind the one that is evaluated.
        """
        times, least = _WAITING if waits else _EVALUATED
        usual = self.usual(task)
        return seconds / (_UNKNOWN if usual is None else max(least, times * usual))

    def limits(self, task: str) -> tuple[float, float]:
        """Return the seconds after which a request takes long, and after which it hangs; infinite before any answer."""
        usual = self.usual(task)
        long, hangs = (inf if usual is None else max(least, times * usual) for times, least in (_LONG, _HANGS))
        return long, hangs

    def hangs(self, actor: Actor[Q], now: float) -> str:
        """Return what an actor hangs at, or ""; warn once of a request that takes far longer than usual."""
        job = actor.current
        if job is None or actor.unreachable_since is not None:
            return ""
        request, seconds = job.requests[0].origin, now - actor.since
        long, hangs = self.limits(request.task)
        split = data_split(request.split)
        what = f"shard {request.shard} of {request.task}, {split}, candidate {request.recipe_id[:12]}"
        if others := len(job.requests) - 1:
            what += f", and {others} sent with it"
        if seconds > hangs:
            return f"it has been at {what} for {seconds:.0f} s"
        if seconds > long and not job.warned:
            job.warned = True
            log.warning("%s has been at %s for %.0f s, %.1f s are usual; its process is replaced after %.0f s",
                        actor.name, what, seconds, self.usual(request.task), hangs)  # fmt: skip
        return ""

    def to_copy(self, actors: Iterable[Actor[Q]], now: float) -> list[InFlight[Q]]:
        """Return the overdue messages that only one actor has, the most overdue first."""
        found = [
            (overdue, job)
            for actor in actors
            if (current := actor.current) is not None
            for job in actor.outstanding.values()
            if job is not None and not job.answered and len(job.actors) == 1
            if (overdue := self.overdue(current.requests[0].origin.task, now - actor.since, waits=job is not current))
            >= 1
        ]
        return [job for _, job in sorted(found, key=lambda each: -each[0])]
