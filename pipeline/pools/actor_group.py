"""The actors of a pool: as many as are asked for, or find room; a node on which they cannot work is left out."""

import logging
import time
from collections.abc import Callable
from typing import Any, Generic

import ray

from pipeline.cluster.capacity import ActorShape, Node, room
from pipeline.cluster.nodes import alive_nodes, away_from, place_of
from pipeline.errors import WorkersLostError, describe
from pipeline.messages import WorkerInfo
from pipeline.pools.actor import Actor, Host, InFlight, advice
from pipeline.pools.base import A, Evaluator
from pipeline.pools.fault_attribution import IN_A_ROW, Deaths
from pipeline.pools.queue import Q

log = logging.getLogger(__name__)

#: Seconds for which an actor may be out of reach. Ray gives a node up after 15 to 60 s, and its actors with it.
_MAX_SILENCE = 120.0
#: Seconds after which a node that was left out is tried again, twice as many each time: a full disk may be freed.
#: And seconds without an answer after which there is no more hope in them, where there are no others.
_TRY_AGAIN, _HOPE = 60.0, 180.0
#: Seconds without room for a single actor, until people are told, until they are told again, and until the pool gives
#: up: an autoscaler needs minutes for a node, and more where there is no spot capacity.
_TELL, _TELL_AGAIN, _GIVE_UP = 60.0, 600.0, 1800.0


class Crew(Generic[Q, A]):
    """Starts actors, and lets them go."""

    def __init__(
        self,
        make: Callable[[str], Evaluator[Q, A]],
        shape: ActorShape,
        kind: str,
        check: Callable[[WorkerInfo], None] | None,
    ) -> None:
        """Start KIND-0, KIND-1, ..."""
        self._make, self._shape, self._kind, self._check = make, shape, kind, check
        self.actors: list[Actor[Q]] = []
        self.owners: dict[Any, Actor[Q]] = {}
        self.known: dict[str, WorkerInfo] = {}
        self._left_out: dict[str, str] = {}
        self._told: set[str] = set()
        #: Node -> when it is tried again, and after how many seconds that is.
        self._again: dict[str, tuple[float, float]] = {}
        self._start_at = 0.0
        self._answered_at = time.monotonic()
        self.deaths = Deaths()
        self._started = self._most = 0
        self._starved: float | None = None
        self._tell_at = 0.0
        self._nodes = alive_nodes()
        self.fill()

    def __contains__(self, actor: object) -> bool:
        """Whether it has not been let go."""
        return isinstance(actor, Actor) and not actor.gone

    def fill(self) -> None:
        """Start the actors that are missing."""
        if time.monotonic() < self._start_at:
            return
        missing = self._shape.workers - len(self.actors)
        if self._shape.elastic:
            missing = max(self._room() - len(self._counted()), not self.actors)
        for _ in range(missing):
            self._start()
        self._most = max(self._most, len(self.actors))

    def _counted(self) -> list[Actor[Q]]:
        """Those for which `_room` is: on a node that is left out some may go on."""
        return [actor for actor in self.actors if actor.node not in self._left_out]

    def _room(self, without: str | None = None) -> int:
        return room((n for n in self._nodes if n.id not in self._left_out and n.id != without), self._shape)

    def _start(self) -> None:
        name = f"{self._kind}-{self._started}"
        self._started += 1
        handle: Any = (
            ray.remote(Host)
            .options(
                num_cpus=self._shape.num_cpus,
                num_gpus=self._shape.num_gpus,
                max_restarts=0,
                **away_from(set(self._left_out)),
            )
            .remote(self._make, name)
        )
        self.actors.append(Actor(name, handle))
        self.ask(self.actors[-1])

    def ask(self, actor: Actor[Q]) -> None:
        """Have it load, or say again what it has loaded."""
        self.owe(actor, actor.handle.info.remote(), None)

    def owe(self, actor: Actor[Q], ref: Any, job: InFlight[Q] | None) -> None:
        """Note what `actor` is to answer."""
        if not actor.outstanding:
            actor.since = time.monotonic()
        actor.outstanding[ref] = job
        self.owners[ref] = actor
        if job is not None:
            job.on.append(actor)

    def returned(self, actor: Actor[Q], ref: Any) -> InFlight[Q] | None:
        """What `ref` was the answer to; its actor has begun with the next."""
        job = actor.outstanding.pop(ref)
        del self.owners[ref]
        actor.since = time.monotonic()
        if job is not None:
            job.on.remove(actor)
        return job

    def take_back(self, actor: Actor[Q]) -> list[InFlight[Q]]:
        """All that `actor` was asked; nothing that it may still answer counts."""
        return [job for ref in list(actor.outstanding) if (job := self.returned(actor, ref)) is not None]

    def remove(self, actor: Actor[Q]) -> list[InFlight[Q]]:
        """Let an actor go; returns what it was asked."""
        jobs = self.take_back(actor)
        self.actors.remove(actor)
        actor.gone = True
        ray.kill(actor.handle)
        return jobs

    def welcome(self, actor: Actor[Q], info: WorkerInfo) -> bool:
        """It has loaded, or is in reach again; False where it cannot be used and is gone.

        Raises:
            ValueError: no worker can be used.
        """
        try:
            self._compare(info)
        except ValueError as error:
            self.unfit(actor, str(error), error)
            return False
        actor.info = self.known[actor.name] = info
        actor.node, actor.silent = place_of(actor.handle), None
        return True

    def _compare(self, info: WorkerInfo) -> None:
        if self._check is not None:
            self._check(info)
        first = next(iter(self.known.values()), info)
        if (first.fingerprint, first.tasks, first.numerics) != (info.fingerprint, info.tasks, info.numerics):
            raise ValueError(
                f"{info.name} ({info.device}) loaded other checkpoints, data or versions than {first.name} "
                f"({first.device}): {info.fingerprint}, {info.numerics} against {first.fingerprint}, {first.numerics}: "
                "all nodes must see the same files and have the same packages"
            )

    def answered(self, actor: Actor[Q]) -> None:
        """It works."""
        self._answered_at = time.monotonic()
        self.deaths.answered(actor.node)
        if actor.node is not None and actor.node not in self._left_out:
            self._again.pop(actor.node, None)

    def unfit(self, actor: Actor[Q], cause: str, error: BaseException) -> None:
        """It cannot load; nor will another one on its node.

        Raises:
            ValueError: there is no other node, and nobody has ever loaded.
        """
        node = actor.node or place_of(actor.handle)
        self.remove(actor)
        if not self.known and (node is None or not self._room(without=node)):
            raise ValueError(cause) from error
        if node is not None:
            self._leave_out(node, f"{cause}; {advice(error)}")
            return
        # It never had a process, so Ray does not say where that was to be.
        self.deaths.add(None, actor.name, cause, self._most)
        self._start_at = time.monotonic() + _TRY_AGAIN
        log.warning("%s; %s. The run goes on with the others, and another one starts in a minute", cause, advice(error))

    def _leave_out(self, node: str, cause: str) -> None:
        """Start no actor there any more, and let those go that have not loaded; those that have go on."""
        if node not in self._left_out:
            self._left_out[node] = cause
            _, waited = self._again.get(node, (0.0, _TRY_AGAIN / 2))
            self._again[node] = time.monotonic() + 2 * waited, 2 * waited
            named = next((n for n in self._nodes if n.id == node), Node(node, "", 0))
            if node not in self._told:
                log.warning("node %s gets no more workers for now, the run goes on with the others: %s. It is tried "
                            "again now and then", named, cause)  # fmt: skip
            self._told.add(node)
        for actor in [a for a in self.actors if a.info is None]:
            if place_of(actor.handle) in (node, None):  # one without a place might be given one there
                self.remove(actor)
        self.fill()

    def died(self, actor: Actor[Q], error: BaseException) -> bool:
        """Note that an actor was lost; False where that is its node's end, for which no request is to blame.

        Raises:
            WorkersLostError: too many in a row.
        """
        node = actor.node or place_of(actor.handle)
        if getattr(error, "preempted", False) or (node is not None and node not in {n.id for n in alive_nodes()}):
            return False
        self.deaths.add(node, actor.name, describe(error), self._most)
        there = sum(a.node == node for a in self.actors if a is not actor)
        limit = max(IN_A_ROW, self._shape.retries + 1) * (there + 1)  # one deadly request is no fault of it
        if node is not None and self.deaths.on(node) > limit and self._room(without=node):
            cause = f"{self.deaths.on(node)} workers were lost there without an answer; the last: {describe(error)}"
            self._leave_out(node, f"{cause}; is there enough memory for one worker?")
        return True

    def look(self) -> list[Actor[Q]]:
        """Follow the cluster; returns the actors of nodes that have left, and those that are out of reach for long.

        Raises:
            WorkersLostError: there is no node for a worker, and has been none for long.
        """
        self._nodes, now = alive_nodes(), time.monotonic()
        alive = {node.id for node in self._nodes}
        for actor in self.actors:
            if actor.silent is not None and not actor.outstanding:
                self.ask(actor)
        if self.known:
            self._try_again(now)
        self._look_for_room(now)
        return [
            a
            for a in self.actors
            if (a.node is not None and a.node not in alive) or now - (a.silent or now) > _MAX_SILENCE
        ]

    def _try_again(self, now: float) -> None:
        """Nodes that were left out count again; who waits for a place waits for one elsewhere, and is started anew."""
        due = [node for node in self._left_out if now > self._again[node][0]]
        if not due:
            return
        for node in due:
            del self._left_out[node]
        for actor in [a for a in self.actors if a.info is None and place_of(a.handle) is None]:
            self.remove(actor)
        self.fill()

    def surplus(self) -> list[Actor[Q]]:
        """Actors that have no place since nodes have left; and, where others need that room, some that have.

        Of a fixed number those without a place go on waiting for one: an autoscaler grows by them.
        """
        counted = self._counted()
        many = len(counted) - max(1, self._room())
        if many <= 0 or not (self._shape.elastic or self._shape.beside is not None):
            return []
        placeless = [a for a in self.actors if a.info is None and place_of(a.handle) is None]
        keeping = [a for a in counted if a not in placeless] if self._shape.beside is not None else []
        if not self._shape.elastic:
            return keeping[::-1][: max(0, many - len(placeless))]
        return [*reversed(placeless), *reversed(keeping)][:many]

    def _look_for_room(self, now: float) -> None:
        if any(a.info is not None or place_of(a.handle) is not None for a in self.actors):
            self._starved = None
            return
        if self._starved is None:
            self._starved, self._tell_at = now, now + _TELL
        some, asks = self._room(), self._shape.asks()
        hopeless = not self.known or now - self._answered_at > _HOPE
        if not some and self._left_out and hopeless and room(self._nodes, self._shape):
            causes = "; ".join(dict.fromkeys(self._left_out.values()))
            raise WorkersLostError(f"no {self._kind} is left, and no node to start one on: {causes}")
        if not some and now - self._starved > _GIVE_UP:
            raise WorkersLostError(
                f"for {_GIVE_UP / 60:.0f} minutes no node had room for one {self._kind}, which asks for {asks}: add "
                "nodes, or ask for less under `resources`, and give the same command again: what was scored is kept"
            )
        if now > self._tell_at:
            self._tell_at = now + _TELL_AGAIN
            why = "what the nodes have is in use" if some else f"none of the {len(self._nodes)} nodes has that"
            log.warning("waiting for room for one %s, which asks for %s: %s", self._kind, asks, why)

    def close(self) -> None:
        """Kill the actors."""
        for actor in list(self.actors):
            self.remove(actor)
