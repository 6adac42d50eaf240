"""Ray's actors in virtual time: days of a pool pass in a moment; nodes join and vanish, actors die, hang and fail.

The pool, its actor group, its queue and Ray's exceptions are real; clock, scheduler and calls are not. Ray itself is
tested elsewhere, on real nodes.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError
from toy import IDENTITY

from pipeline.cluster.capacity import Node
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.pools import actor_group, ray_pool
from pipeline.pools.failures import is_broken
from pipeline.recipe import Recipe
from tasks.stats import Stats

#: What an actor does when it is called: seconds, and "answers", "raises" or "dies", with what.
Behaviour = tuple[float, str, Any]
LOAD = 15.0


class Ref:
    """The reference that a call returns."""

    def __init__(self, method: str, arguments: tuple[Any, ...]) -> None:
        self.method, self.arguments = method, arguments
        self.result: tuple[str, Any] | None = None


class Method:
    """`actor.method.remote(...)`."""

    def __init__(self, actor: "VirtualActor", name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Ref:
        return self._actor.call(Ref(self._name, arguments))


class VirtualActor:
    """Answers calls one by one once it has a node."""

    def __init__(self, world: "World", name: str, options: dict[str, Any]) -> None:
        self._world, self.name, self.options = world, name, options
        self.node: str | None = None
        self.answered = self.messages = 0
        self.dead: BaseException | None = None
        self._calls: list[Ref] = []
        self._busy = False
        self.info, self.evaluate = Method(self, "info"), Method(self, "evaluate")
        self.evaluate_all = Method(self, "evaluate_all")

    def call(self, ref: Ref) -> Ref:
        if self.dead is not None:
            ref.result = "raises", self.dead
        else:
            self._calls.append(ref)
            self.work()
        return ref

    def work(self) -> None:
        if self._busy or self.dead is not None or self.node is None or not self._calls:
            return
        self._busy, ref = True, self._calls[0]
        behave = self._all if ref.method == "evaluate_all" else partial(self._world.behave, self, ref.method)
        seconds, what, value = behave(*ref.arguments)
        self.messages += 1
        self._world.at(self._world.now + seconds, lambda: self._finish(ref, what, value))

    def _all(self, requests: Sequence[EvalRequest]) -> Behaviour:
        """Behave as for each request, until the actor must be replaced."""
        seconds, found = 0.0, []
        for request in requests:
            takes, what, value = self._world.behave(self, "evaluate", request)
            seconds += takes
            if what == "dies" or (what == "raises" and is_broken(value.cause)):
                return seconds, what, value
            found.append(value.cause if what == "raises" else value)
        return seconds, "answers", found

    def _finish(self, ref: Ref, what: str, value: Any) -> None:
        if self.dead is not None:
            return
        self._busy = False
        if what == "dies":
            self.die(ActorDiedError())
            return
        self.answered += len(value) if isinstance(value, list) else what == "answers"
        self._calls.remove(ref)
        ref.result = what, value
        self.work()

    def die(self, error: BaseException | None = None) -> None:
        if self.dead is None:
            self.dead = error or ActorDiedError()
            for ref in self._calls:
                ref.result = "raises", self.dead
            self._calls = []
            self._world.at(self._world.now, self._world.schedule)


class World:
    """Nodes, actors and events; also replaces the modules `ray` and `time`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.nodes: dict[str, Node] = {}
        self.actors: list[VirtualActor] = []
        self.behave: Callable[..., Behaviour] = well
        #: Why an actor cannot be started on a node.
        self.refuse: Callable[[Node], BaseException | None] = lambda node: None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), what))

    def join(self, name: str, cpus: float = 1) -> None:
        self.nodes[name] = Node(name, f"10.0.0.{name}", cpus)
        self.at(self.now, self.schedule)

    def schedule(self) -> None:
        """Give each actor without a node, in order, the first node with free resources."""
        for actor in [a for a in self.actors if a.dead is None and a.node is None]:
            avoided = actor.options.get("label_selector", {}).get("ray.io/node-id", "")
            asks = actor.options["num_cpus"]
            for node in (n for n in self.nodes.values() if n.id not in avoided and self._used(n) + asks <= n.cpus):
                if (refusal := self.refuse(node)) is not None:
                    actor.die(refusal)
                else:
                    actor.node = node.id
                    actor.work()
                break

    def _used(self, node: Node) -> float:
        return sum(a.options["num_cpus"] for a in self.actors if a.node == node.id and a.dead is None)

    # Replaces `time`.
    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._run_until(self.now + seconds)

    def _run_until(self, when: float) -> None:
        while self._events and self._events[0][0] <= when:
            due, _, what = heapq.heappop(self._events)
            self.now = max(self.now, due)
            what()
        self.now = max(self.now, when)

    # Replaces `ray`.
    def remote(self, kind: type) -> "World":
        return self

    def options(self, **options: Any) -> Any:
        world = self

        class Start:
            @staticmethod
            def remote(make: object, name: str) -> VirtualActor:
                world.actors.append(VirtualActor(world, name, options))
                world.at(world.now, world.schedule)
                return world.actors[-1]

        return Start

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        end = self.now + timeout
        while sum(r.result is not None for r in refs) < num_returns and self._events and self._events[0][0] <= end:
            self._run_until(self._events[0][0])
        if sum(r.result is not None for r in refs) < num_returns:
            self._run_until(end)
        done = [r for r in refs if r.result is not None][:num_returns]
        return done, [r for r in refs if r not in done]

    def get(self, ref: Ref, timeout: float) -> Any:
        assert ref.result is not None
        what, value = ref.result
        if what == "raises":
            raise value
        return value

    def kill(self, actor: VirtualActor) -> None:
        actor.die()


def virtual(monkeypatch: pytest.MonkeyPatch) -> World:
    """Make pools use a new world until the test ends."""
    made = World()
    for module in (actor_group, ray_pool):
        monkeypatch.setattr(module, "ray", made)
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(actor_group, "alive_nodes", lambda: list(made.nodes.values()))
    monkeypatch.setattr(actor_group, "node_of", lambda actor: actor.node)
    return made


def score(actor: VirtualActor, request: EvalRequest, seconds: float = 1.0) -> Behaviour:
    answer = ShardScore(request, Stats(1, 1.0, 1.0), np.array([True]), 0.1, (0.0, seconds), actor.name)
    return seconds, "answers", answer


def well(actor: VirtualActor, method: str, *arguments: Any) -> Behaviour:
    """Load in 15 s, answer in 1 s."""
    if method == "info":
        return LOAD, "answers", IDENTITY.worker(actor.name, "none")
    return score(actor, arguments[0])


def raised(error: Exception) -> RayError:
    """Return an evaluator's error as it reaches the driver."""
    original = RayTaskError("evaluate", "a traceback", error, proctitle="p", pid=1, ip="127.0.0.1")
    found: RayError = RayError.from_bytes(original.to_bytes())  # type: ignore[no-untyped-call]
    return found


def requests(candidates: int, shards: int) -> list[EvalRequest]:
    recipes = [Recipe.make("sum", "linear", 0.001 * c, 0.5) for c in range(candidates)]
    return [EvalRequest(r, f"c{c}", "cats", "val", i, i, i + 1) for c, r in enumerate(recipes) for i in range(shards)]


def drained(pool: Any, wanted: Iterable[Any], hours: float = 24.0) -> list[ShardScore | Failure]:
    """Return all answers, or those of the given hours."""
    asked = list(wanted)
    pool.submit(asked)
    found: list[ShardScore | Failure] = []
    end = actor_group.time.monotonic() + 3600 * hours
    while len(found) < len(asked) and actor_group.time.monotonic() < end:
        found += pool.wait(timeout=1.0)
    return found
