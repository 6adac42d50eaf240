"""The actors of a pool: starts, replaces and removes them as nodes join, leave and fail."""

import logging
import time
from collections.abc import Callable
from typing import Any, Generic

import ray

from pipeline.cluster.capacity import ActorShape, Node, count_fitting
from pipeline.cluster.nodes import alive_nodes, avoid_nodes
from pipeline.cluster.ray_private import node_of
from pipeline.errors import WorkersLostError, describe
from pipeline.messages import WorkerInfo
from pipeline.pools.actor import Actor, EvaluatorActor, InFlight, advice
from pipeline.pools.base import A, Evaluator, Q
from pipeline.pools.fault_attribution import IN_A_ROW, LossCounter

log = logging.getLogger(__name__)

#: Seconds for which an actor may be unreachable. Ray gives a node up after 15 to 60 s, and its actors with it.
_MAX_UNREACHABLE = 120.0
#: Seconds after which an excluded node is tried again, doubled each time: a full disk may have been freed. And seconds
#: without any answer after which a pool with no other nodes gives up.
_TRY_AGAIN, _MAX_UNANSWERED = 60.0, 180.0
#: Seconds without a place for a single actor until a warning, until the next warnings, and until the pool gives up: an
#: autoscaler needs minutes for a node, and more if there is no spot capacity.
_WARN, _WARN_AGAIN, _GIVE_UP = 60.0, 600.0, 1800.0


class ActorGroup(Generic[Q, A]):
    """Starts actors on the nodes that can run them, and removes actors.

    Attributes:
        actors: the actors that were started and not removed.
        owners: Ray's reference of each outstanding call -> its actor.
        known: name -> info of every actor that has loaded, lost ones included.
        losses: attributes lost actors to nodes and the pool.
    """

    def __init__(
        self,
        make: Callable[[str], Evaluator[Q, A]],
        shape: ActorShape,
        kind: str,
        check: Callable[[WorkerInfo], None] | None,
        held: str = "",
    ) -> None:
        """Start KIND-0, KIND-1, ...; for the arguments see `RayPool`."""
        self._make, self._shape, self._kind, self._check, self._held = make, shape, kind, check, held
        self.actors: list[Actor[Q]] = []
        self.owners: dict[Any, Actor[Q]] = {}
        self.known: dict[str, WorkerInfo] = {}
        self.losses = LossCounter()
        #: Excluded node -> the cause.
        self._excluded: dict[str, str] = {}
        self._warned_of: set[str] = set()
        #: Node -> when it is tried again, and after how many seconds that is.
        self._retry_at: dict[str, tuple[float, float]] = {}
        self._start_at = 0.0
        self._answered_at = time.monotonic()
        self._started = self._most = 0
        self._waiting_since: float | None = None
        self._warn_at = 0.0
        self._nodes = alive_nodes()
        self.start_missing()

    def start_missing(self) -> None:
        """Start the actors that are missing."""
        if time.monotonic() < self._start_at:
            return
        missing = self._shape.workers - len(self.actors)
        if self._shape.elastic:
            missing = max(self._capacity() - len(self._counted()), not self.actors)
        for _ in range(missing):
            self._start()
        self._most = max(self._most, len(self.actors))

    def _counted(self) -> list[Actor[Q]]:
        """Return the actors that use `_capacity`; an excluded node may have others, which continue."""
        return [actor for actor in self.actors if actor.node not in self._excluded]

    def _capacity(self, without: str | None = None) -> int:
        nodes = (n for n in self._nodes if n.id not in self._excluded and n.id != without)
        return count_fitting(nodes, self._shape)

    def _start(self) -> None:
        name = f"{self._kind}-{self._started}"
        self._started += 1
        options = {"num_cpus": self._shape.num_cpus, "num_gpus": self._shape.num_gpus, "max_restarts": 0}
        remote: Any = ray.remote(EvaluatorActor)
        handle: Any = remote.options(**options, **avoid_nodes(set(self._excluded))).remote(self._make, name)
        self.actors.append(Actor(name, handle))
        if self._held:
            handle.import_module.remote(self._held)
        else:
            self.request_info(self.actors[-1])

    def load(self, check: Callable[[WorkerInfo], None]) -> None:
        """Have the actors load that were held until now."""
        self._check, self._held = check, ""
        for actor in self.actors:
            self.request_info(actor)

    def request_info(self, actor: Actor[Q]) -> None:
        """Have the actor load, or report again what it has loaded."""
        self.add_call(actor, actor.handle.info.remote(), None)

    def add_call(self, actor: Actor[Q], ref: Any, job: InFlight[Q] | None) -> None:
        """Note a call of `actor`; `job` is None for a call of `info`."""
        if not actor.outstanding:
            actor.since = time.monotonic()
        actor.outstanding[ref] = job
        self.owners[ref] = actor
        if job is not None:
            job.actors.append(actor)

    def end_call(self, actor: Actor[Q], ref: Any) -> InFlight[Q] | None:
        """Note that a call has returned, and return its message; the actor has begun with the next."""
        job = actor.outstanding.pop(ref)
        del self.owners[ref]
        actor.since = time.monotonic()
        if job is not None:
            job.actors.remove(actor)
        return job

    def take_back(self, actor: Actor[Q]) -> list[InFlight[Q]]:
        """Return all messages of `actor`; answers that it may still give are ignored."""
        return [job for ref in list(actor.outstanding) if (job := self.end_call(actor, ref)) is not None]

    def remove(self, actor: Actor[Q]) -> list[InFlight[Q]]:
        """Kill an actor; returns its messages."""
        jobs = self.take_back(actor)
        self.actors.remove(actor)
        actor.removed = True
        ray.kill(actor.handle)
        return jobs

    def loaded(self, actor: Actor[Q], info: WorkerInfo) -> None:
        """Note that an actor has loaded, or can be reached again; it is removed if what it has loaded cannot be used.

        Raises:
            ValueError: if no worker can be used.
        """
        try:
            self._compare(info)
        except ValueError as error:
            self.load_failed(actor, str(error), error)
            return
        actor.info = self.known[actor.name] = info
        actor.node, actor.unreachable_since = node_of(actor.handle), None

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
        """Note that an actor has answered a request."""
        self._answered_at = time.monotonic()
        self.losses.answered(actor.node)
        if actor.node is not None and actor.node not in self._excluded:
            self._retry_at.pop(actor.node, None)

    def load_failed(self, actor: Actor[Q], cause: str, error: BaseException) -> None:
        """Remove an actor that cannot load, and exclude its node.

        Raises:
            ValueError: if there is no other node, and no actor has ever loaded.
        """
        node = actor.node or node_of(actor.handle)
        self.remove(actor)
        if not self.known and (node is None or not self._capacity(without=node)):
            raise ValueError(cause) from error
        if node is not None:
            self._exclude(node, f"{cause}; {advice(error)}")
            return
        # The actor never had a process, so Ray does not know its node.
        self.losses.add(None, actor.name, cause, self._most)
        self._start_at = time.monotonic() + _TRY_AGAIN
        log.warning(
            "%s; %s. The run continues with the others, and another one starts in a minute", cause, advice(error)
        )

    def _exclude(self, node: str, cause: str) -> None:
        """Start no more actors on a node, and remove those that have not loaded; loaded ones continue."""
        if node not in self._excluded:
            self._excluded[node] = cause
            _, waited = self._retry_at.get(node, (0.0, _TRY_AGAIN / 2))
            self._retry_at[node] = time.monotonic() + 2 * waited, 2 * waited
            shown = next((n for n in self._nodes if n.id == node), Node(node, "", 0))
            if node not in self._warned_of:
                log.warning("node %s gets no more workers for now, the run continues with the others: %s. It is tried "
                            "again from time to time", shown, cause)  # fmt: skip
            self._warned_of.add(node)
        for actor in [a for a in self.actors if a.info is None]:
            if node_of(actor.handle) in (node, None):  # one without a node might be placed there
                self.remove(actor)
        self.start_missing()

    def died(self, actor: Actor[Q], error: BaseException) -> bool:
        """Note the loss of an actor; returns False if its node has left, which no request can have caused.

        Raises:
            WorkersLostError: if too many actors were lost in a row.
        """
        node = actor.node or node_of(actor.handle)
        if getattr(error, "preempted", False) or (node is not None and node not in {n.id for n in alive_nodes()}):
            return False
        self.losses.add(node, actor.name, describe(error), self._most)
        others = sum(a.node == node for a in self.actors if a is not actor)
        limit = max(IN_A_ROW, self._shape.retries + 2) * (others + 1)  # more than one deadly request can cause
        if node is not None and self.losses.on(node) > limit and self._capacity(without=node):
            cause = f"{self.losses.on(node)} workers were lost there without an answer; the last: {describe(error)}"
            self._exclude(node, f"{cause}; is there enough memory for one worker?")
        return True

    def poll(self) -> list[Actor[Q]]:
        """Look at the cluster; returns actors whose nodes have left or that were unreachable for too long.

        Raises:
            WorkersLostError: if no node can run a worker, and none could for long.
        """
        self._nodes, now = alive_nodes(), time.monotonic()
        alive = {node.id for node in self._nodes}
        for actor in self.actors:
            if actor.unreachable_since is not None and not actor.outstanding:
                self.request_info(actor)
        if self.known:
            self._readmit_nodes(now)
        self._check_places(now)
        return [
            a
            for a in self.actors
            if (a.node is not None and a.node not in alive) or now - (a.unreachable_since or now) > _MAX_UNREACHABLE
        ]

    def _readmit_nodes(self, now: float) -> None:
        """Use excluded nodes again when their time has come; actors without a node avoid them, and are replaced."""
        due = [node for node in self._excluded if now > self._retry_at[node][0]]
        if not due:
            return
        for node in due:
            del self._excluded[node]
        for actor in [a for a in self.actors if a.info is None and node_of(a.handle) is None]:
            self.remove(actor)
        self.start_missing()

    def surplus(self) -> list[Actor[Q]]:
        """Return the actors to remove since nodes have left.

        They are actors without a node, and, if resources are reserved for another pool, actors that use these. In a
        pool of fixed size, actors without a node continue to wait: an autoscaler adds nodes for them.
        """
        counted = self._counted()
        excess = len(counted) - max(1, self._capacity())
        if excess <= 0 or not (self._shape.elastic or self._shape.reserved is not None):
            return []
        unplaced = [a for a in self.actors if a.info is None and node_of(a.handle) is None]
        placed = [a for a in counted if a not in unplaced] if self._shape.reserved is not None else []
        if not self._shape.elastic:
            return placed[::-1][: max(0, excess - len(unplaced))]
        return [*reversed(unplaced), *reversed(placed)][:excess]

    def _check_places(self, now: float) -> None:
        """Warn while no actor has a node, and give up in the end."""
        if any(a.info is not None or node_of(a.handle) is not None for a in self.actors):
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since, self._warn_at = now, now + _WARN
        capacity, resources = self._capacity(), self._shape.resources()
        hopeless = not self.known or now - self._answered_at > _MAX_UNANSWERED
        if not capacity and self._excluded and hopeless and count_fitting(self._nodes, self._shape):
            causes = "; ".join(dict.fromkeys(self._excluded.values()))
            raise WorkersLostError(f"no {self._kind} is left, and no node to start one on: {causes}")
        if not capacity and now - self._waiting_since > _GIVE_UP:
            raise WorkersLostError(
                f"for {_GIVE_UP / 60:.0f} minutes no node could run one {self._kind}, which needs {resources}: add "
                "nodes, or ask for less under `resources`, and rerun the command: what was scored is kept"
            )
        if now > self._warn_at:
            self._warn_at = now + _WARN_AGAIN
            why = "the nodes' resources are in use" if capacity else f"none of the {len(self._nodes)} nodes has that"
            log.warning("waiting for a node for one %s, which needs %s: %s", self._kind, resources, why)

    def close(self) -> None:
        """Kill the actors."""
        for actor in list(self.actors):
            self.remove(actor)
