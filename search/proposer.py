"""The interface between a search and its driver: ask for a point, tell what came of it, replay after a crash."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from search.space import Point

Json: TypeAlias = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point to evaluate.

    Attributes:
        number: 0, 1, 2, ... in the order of asking.
        point: dimension name -> value.
        state: what the proposer needs to replay this ask: opaque, JSON, journaled with the point.
    """

    number: int
    point: Point
    state: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a proposal.

    Attributes:
        number: the proposal's.
        values: one value an objective, all to be maximised; None: the candidate failed, and its record says why.
    """

    number: int
    values: tuple[float, ...] | None


class Proposer(Protocol):
    """A strategy of search.

    What `ask` returns is a function of the points asked and the outcomes told so far, and of nothing else: no clock,
    no process, no hash seed. So a driver whose n-th ask follows the outcomes 0 to n - K, told in order, gets the same
    points however its workers are timed. The same point may be proposed twice: scores are memoised by the caller.
    """

    def ask(self) -> Proposal | None:
        """The next point; None once the search is over, and ever after."""
        ...

    def tell(self, outcome: Outcome) -> None:
        """Report what came of a proposal.

        Raises:
            ValueError: the number was not asked, or was told before; the values do not fit the objectives.
        """
        ...

    def replay(self, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
        """Bring a fresh proposer to where another one stood: the next `ask` gives what that one would have given.

        Args:
            proposals: everything that was asked, in order.
            outcomes: everything that was told. Proposals without an outcome are still being evaluated. An outcome
                that is known but whose turn to be told has not come must not be among them: tell it in its turn.

        Raises:
            ValueError: the record does not fit this proposer's space and settings, or is not complete.
        """
        ...


class FixedProposer:
    """The given points, in order: grids, lists, single candidates. Outcomes change nothing."""

    def __init__(self, points: Sequence[Point]) -> None:
        """Take the points.

        Raises:
            ValueError: there are none.
        """
        if not points:
            raise ValueError("grid empty: there must be at least one point to evaluate")
        self._points = points
        self._asked = 0
        self._told: set[int] = set()

    def ask(self) -> Proposal | None:
        """The next of the points, None after the last."""
        if self._asked == len(self._points):
            return None
        self._asked += 1
        return Proposal(self._asked - 1, dict(self._points[self._asked - 1]))

    def tell(self, outcome: Outcome) -> None:
        """Check the number.

        Raises:
            ValueError: it was not asked, or was told before.
        """
        check_in_flight(outcome.number, self._asked, self._told)
        self._told.add(outcome.number)

    def replay(self, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
        """Skip what was asked.

        Raises:
            ValueError: a recorded point is not the one at its place in this list.
        """
        for recorded in proposals:
            own = self.ask()
            if own is None or (own.number, own.point) != (recorded.number, recorded.point):
                raise ValueError(f"replay: proposal {recorded.number} was {recorded.point}, but this grid has {own}")
        for outcome in outcomes:
            self.tell(outcome)


def check_in_flight(number: int, asked: int, told: set[int]) -> None:
    """Require that proposal `number` is in flight.

    Raises:
        ValueError: it was not asked, or was told before.
    """
    if not 0 <= number < asked:
        raise ValueError(f"tell: proposal {number} was never asked ({asked} were)")
    if number in told:
        raise ValueError(f"tell: proposal {number} was told before")
