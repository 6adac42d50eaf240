"""Who is to blame where actors are lost: a request, a node, or what all of them have in common."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Generic

from pipeline.errors import WorkersLostError
from pipeline.pools.queue import Q

#: Losses for each actor, without one answer in between, after which its node, and then the pool, is given up: the fault
#: is not the request's. A node that is taken away loses all of its actors at once, which is no such fault.
IN_A_ROW = 4
#: So many candidates of which actors die, one after the other without an answer in between, in a pool that has never
#: answered, and in one that has: the fault is not the candidates'.
_CANDIDATES, _CANDIDATES_LATER = 3, 8
#: After so many requests of a candidate that actors die of, its others get one try each.
_DEADLY = 2


class Deaths:
    """The deaths of a pool's actors since each node, and any, has answered last."""

    def __init__(self) -> None:
        """All are alive."""
        self._on: Counter[str | None] = Counter()
        self._in_a_row = 0
        self._candidates: set[str] = set()
        self._answered = False

    def on(self, node: str) -> int:
        """How many on a node."""
        return self._on[node]

    def answered(self, node: str | None) -> None:
        """An actor there has answered."""
        self._in_a_row, self._answered = 0, True
        self._candidates.clear()
        self._on.pop(node, None)

    def add(self, node: str | None, name: str, cause: str, actors: int) -> None:
        """One more.

        Args:
            node: where, if it is known.
            name: of the actor.
            cause: for people.
            actors: how many there have been at once.

        Raises:
            WorkersLostError: too many in a row.
        """
        self._on[node] += 1
        self._in_a_row += 1
        if self._in_a_row > IN_A_ROW * max(2, actors):
            raise WorkersLostError(
                f"{self._in_a_row} workers were lost one after the other without an answer; the last, {name}: {cause}: "
                "is there enough memory for one worker? What was scored is kept"
            )

    def pardon(self, candidate: str, nodes: Iterable[str | None]) -> None:
        """A request was to blame for deaths on `nodes`, and is given up: the nodes were not.

        Raises:
            WorkersLostError: so it was with one candidate after the other.
        """
        for node in nodes:
            self._in_a_row = max(0, self._in_a_row - 1)
            self._on[node] = max(0, self._on[node] - 1)
        self._candidates.add(candidate)
        if len(self._candidates) > (_CANDIDATES_LATER if self._answered else _CANDIDATES):
            raise WorkersLostError(
                f"workers die of every candidate, of {len(self._candidates)} by now without an answer in between: is "
                "there enough memory for one worker? What was scored is kept"
            )


class Suspicion(Generic[Q]):
    """Which requests were on actors that were lost, and how much each is blamed for it."""

    def __init__(self, retries: int) -> None:
        """Nothing is lost; a request that is blamed more often than `retries` is to be given up."""
        self._retries = retries
        self._blame: dict[Q, float] = {}
        #: Request -> the nodes of the actors that died of it, as far as anyone can tell.
        self._died_of: dict[Q, list[str | None]] = {}
        self._deadly = Counter[str]()
        self._suspects: set[Q] = set()

    def __contains__(self, request: object) -> bool:
        """Whether it was on an actor that died: it goes alone from then on, so that it is known of which they die.

        The answer to the one before may die with the process on its way.
        """
        return request in self._suspects

    def lost(self, requests: Sequence[Q], node: str | None, blame: float) -> None:
        """An actor was lost with these requests; only the first was being evaluated, those behind are not to blame.

        Args:
            requests: in the order in which they were asked.
            node: where it was.
            blame: 1 where the process has died, less where its node has, or the way to it.
        """
        died = blame >= 1
        for request in requests[:1]:
            self._blame[request] = self._blame.get(request, 0.0) + blame
            if died:
                self._died_of.setdefault(request, []).append(node)
        if died:
            self._suspects.update(requests)

    def too_often(self, request: Q) -> float:
        """How often actors were lost with a request that is to be given up for it; 0 of any other."""
        blame = self._blame.get(request, 0.0)
        if self._deadly[request.recipe_id] >= _DEADLY:
            return blame if blame >= 1 else 0.0
        return blame if blame > self._retries else 0.0

    def condemn(self, request: Q) -> list[str | None]:
        """Give a request up; returns the nodes of the actors that died of it."""
        nodes = self._died_of.pop(request, [])
        self._deadly[request.recipe_id] += bool(nodes)
        return nodes
