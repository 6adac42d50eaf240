"""When an answer is overdue: an idle worker then gets a copy of the request, and whichever answers first counts."""

from collections import defaultdict, deque
from collections.abc import Iterable
from math import inf
from statistics import median

from pipeline.pools.actor import Actor, InFlight
from pipeline.pools.queue import Q

#: Answers of each task that say what is usual.
_REMEMBERED = 31
#: Times the usual, and seconds at least, for which a request may be evaluated until it is copied. Slower workers than
#: others, the first shard of a candidate (weights are rebuilt) and a busy driver all stay below three times the usual;
#: what takes longer is not nearly done, as far as anyone can tell, and a copy is then expected one usual time later.
_EVALUATED = (3.0, 2.0)
#: The same for a request that waits behind another one: nothing of its work is done, and the copy can only gain; but
#: one whose turn has almost come is left to its worker, which may hold the weights.
_WAITING = (1.5, 1.0)
#: The same until people are told that a request takes long, and until the process that evaluates it is replaced: it
#: hangs, as in a lock, or on a device that does not answer.
_LONG, _HANGS = (30.0, 600.0), (100.0, 3600.0)
#: Seconds until a request is copied while nothing is known of any task: its worker may be the slow one.
_UNKNOWN = 30.0


class Pace:
    """How long answers usually take, by task: tasks differ, shards of one do not."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def note(self, task: str, seconds: float) -> None:
        """An answer for `task` took so long."""
        self._seconds[task].append(seconds)

    def usual(self, task: str) -> float | None:
        """The median seconds of the task's answers; before the first, of the slowest task; None before any."""
        if known := self._seconds.get(task):
            return median(known)
        return max((median(s) for s in self._seconds.values()), default=None)

    def overdue(self, task: str, seconds: float, waits: bool = False) -> float:
        """How many times longer than it may take a request is out; 1 and more: it is to be copied.

        Args:
            task: what its worker evaluates.
            seconds: for how long it has been doing so.
            waits: whether the request is another one, behind that.
        """
        times, least = _WAITING if waits else _EVALUATED
        usual = self.usual(task)
        return seconds / (_UNKNOWN if usual is None else max(least, times * usual))

    def limits(self, task: str) -> tuple[float, float]:
        """Seconds after which a request for `task` takes long, and after which it hangs; never while none is usual."""
        usual = self.usual(task)
        long, hangs = (inf if usual is None else max(least, times * usual) for times, least in (_LONG, _HANGS))
        return long, hangs

    def late(self, actors: Iterable[Actor[Q]], now: float) -> list[InFlight[Q]]:
        """Requests that are to be copied, the one that is most overdue first; those that are on two actors are not."""
        found = [
            (overdue, job)
            for actor in actors
            if (front := actor.front) is not None
            for job in actor.outstanding.values()
            if job is not None and not job.done and len(job.on) == 1
            if (overdue := self.overdue(front.request.origin.task, now - actor.since, waits=job is not front)) >= 1
        ]
        return [job for _, job in sorted(found, key=lambda each: -each[0])]
