"""Attribute the loss of actors to a request, a node or the whole pool."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Generic

from pipeline.errors import WorkersLostError
from pipeline.pools.base import Q

#: Losses for each actor without an answer in between, after which its node, and then the pool, is given up. The loss
#: of a whole node does not count: it loses all its actors at once.
IN_A_ROW = 4
#: Number of candidates whose requests lost actors, without an answer in between, after which the pool is given up: in
#: a pool that has never answered, and in one that has.
_CANDIDATES, _CANDIDATES_LATER = 3, 8
#: After this many deadly requests of a candidate, its other requests are tried once each.
_DEADLY = 2


class LossCounter:
    """Counts the actors lost since the last answer, for each node and for the pool."""

    def __init__(self) -> None:
        """Start with no losses."""
        self._on: Counter[str | None] = Counter()
        self._in_a_row = 0
        self._candidates: set[str] = set()
        self._answered = False

    def on(self, node: str) -> int:
        """Return the number of losses on a node."""
        return self._on[node]

    def answered(self, node: str | None) -> None:
        """Note that an actor on `node` has answered."""
        self._in_a_row, self._answered = 0, True
        self._candidates.clear()
        self._on.pop(node, None)

    def add(self, node: str | None, name: str, cause: str, actors: int) -> None:
        """Count one more loss.

        Args:
            node: the actor's node, None if unknown.
            name: the actor's name.
            cause: for the error message.
            actors: the largest number of actors so far.

        Raises:
            WorkersLostError: if too many actors were lost in a row.
        """
        self._on[node] += 1
        self._in_a_row += 1
        if self._in_a_row > IN_A_ROW * max(2, actors):
            raise WorkersLostError(
                f"{self._in_a_row} workers were lost one after the other without an answer; the last, {name}: {cause}: "
                "is there enough memory for one worker? What was scored is kept"
            )

    def attribute_to_request(self, candidate: str, nodes: Iterable[str | None]) -> None:
        """Take back losses on `nodes`: a request of `candidate`, now given up, caused them.

        Raises:
            WorkersLostError: if one candidate after the other lost actors.
        """
        for node in nodes:
            self._in_a_row = max(0, self._in_a_row - 1)
            self._on[node] = max(0, self._on[node] - 1)
        self._candidates.add(candidate)
        if len(self._candidates) > (_CANDIDATES_LATER if self._answered else _CANDIDATES):
            raise WorkersLostError(
                f"workers die of every candidate, of {len(self._candidates)} so far without an answer in between: is "
                "there enough memory for one worker? What was scored is kept"
            )


class SuspectRequests(Generic[Q]):
    """The requests that lost actors had, with the number of losses attributed to each."""

    def __init__(self, retries: int) -> None:
        """Start with no losses; a request with more than `retries` is to be given up."""
        self._retries = retries
        self._losses: dict[Q, float] = {}
        #: Request -> the nodes of the actors that died while evaluating it.
        self._nodes: dict[Q, list[str | None]] = {}
        self._deadly = Counter[str]()
        self._suspects: set[Q] = set()

    def __contains__(self, request: object) -> bool:
        """Whether an actor died that had the request. Such requests are sent alone, which shows which one is deadly.

        The actor may have died of the request behind: its answer to the one before can be lost with the process.
        """
        return request in self._suspects

    def actor_lost(self, messages: Sequence[Sequence[Q]], node: str | None, weight: float) -> None:
        """Note the loss of an actor; it counts for the first message alone, which was being evaluated.

        If the process died and that message has several requests, it counts for none of them: nobody knows for which.

        Args:
            messages: what the actor had, in the order in which it was sent.
            node: the actor's node, None if unknown.
            weight: 1 if the process died, less if its node or the network failed.
        """
        died = weight >= 1
        for request in [] if died and len(messages[0]) > 1 else messages[0][:1]:
            self._losses[request] = self._losses.get(request, 0.0) + weight
            if died:
                self._nodes.setdefault(request, []).append(node)
        if died:
            self._suspects.update(*messages)

    def losses_over_limit(self, request: Q) -> float:
        """Return the losses of a request if they are so many that it must be given up, else 0."""
        losses = self._losses.get(request, 0.0)
        if self._deadly[request.recipe_id] >= _DEADLY:
            return losses if losses >= 1 else 0.0
        return losses if losses > self._retries else 0.0

    def give_up(self, request: Q) -> list[str | None]:
        """Give up a request; returns the nodes of the actors that died while evaluating it."""
        nodes = self._nodes.pop(request, [])
        self._deadly[request.recipe_id] += bool(nodes)
        return nodes
