"""The interface of a search: ask for a point, tell its outcome, replay after a crash."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from search.space import Point

Json: TypeAlias = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A point to evaluate.

    Attributes:
        number: 0, 1, 2, ... in the order of the asks.
        point: dimension name -> value.
        state: JSON that the proposer needs to replay this ask; the journal keeps it with the point.
    """

    number: int
    point: Point
    state: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a proposal.

    Attributes:
        number: number of the proposal.
        values: one value for each objective, all maximised; None if the candidate failed.
    """

    number: int
    values: tuple[float, ...] | None


class Proposer(Protocol):
    """A search strategy.

    `ask` depends only on the earlier points and outcomes: not on a clock, a process or a hash seed. If ask n always
    follows the outcomes 0 to n - K, told in order, the points do not depend on the timing of workers. The same point
    may be proposed twice; the caller remembers scores.
    """

    def ask(self) -> Proposal | None:
        """Return the next point, or None once the search is over."""

    def tell(self, outcome: Outcome) -> None:
        """Report the outcome of a proposal.

        Raises:
            ValueError: if the number was not asked or was already told, or the values do not fit the objectives.
        """

    def replay(self, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
        """Bring a new proposer to the recorded state, so that the next `ask` continues the recorded search.

        Args:
            proposals: all recorded proposals, in order.
            outcomes: all outcomes that were told. Proposals without an outcome are in flight. Leave out outcomes that
                are known but were not yet told, and tell them in their turn.

        Raises:
            ValueError: if the record does not fit this proposer's space and settings, or is incomplete.
        """


class FixedProposer:
    """Proposes the given points in order, independent of outcomes: grids, lists, single candidates."""

    def __init__(self, points: Sequence[Point]) -> None:
        """Create the proposer.

        Raises:
            ValueError: if there are no points.
        """
        if not points:
            raise ValueError("grid empty: there must be at least one point to evaluate")
        self._points = points
        self._asked = 0
        self._told: set[int] = set()

    def ask(self) -> Proposal | None:
        """Return the next point, or None after the last."""
        if self._asked == len(self._points):
            return None
        self._asked += 1
        return Proposal(self._asked - 1, dict(self._points[self._asked - 1]))

    def tell(self, outcome: Outcome) -> None:
        """Check the number.

        Raises:
            ValueError: if it was not asked or was already told.
        """
        check_in_flight(outcome.number, self._asked, self._told)
        self._told.add(outcome.number)

    def replay(self, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
        """Skip the recorded points.

        Raises:
            ValueError: if a recorded point differs from the point at its place in this list.
        """
        replay_in_order(self, proposals, outcomes)


def replay_in_order(proposer: Proposer, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
    """Repeat the recorded asks on a new proposer, and tell each outcome right after its ask.

    Raises:
        ValueError: if the proposer asks for another point than the recorded one, or `tell` refuses an outcome.
    """
    untold = outcomes_by_number(outcomes)
    for recorded in proposals:
        own = proposer.ask()
        if own is None or (own.number, own.point) != (recorded.number, recorded.point):
            raise ValueError(f"replay: proposal {recorded.number} was {recorded.point}, but this search gives {own}")
        if recorded.number in untold:
            proposer.tell(untold.pop(recorded.number))
    for outcome in untold.values():
        proposer.tell(outcome)


def outcomes_by_number(outcomes: Sequence[Outcome]) -> dict[int, Outcome]:
    """Return number -> outcome.

    Raises:
        ValueError: if a proposal has two outcomes.
    """
    numbered = {outcome.number: outcome for outcome in outcomes}
    if len(numbered) < len(outcomes):
        raise ValueError("replay: a proposal has two outcomes")
    return numbered


def check_in_flight(number: int, asked: int, told: set[int]) -> None:
    """Require that proposal `number` is in flight.

    Raises:
        ValueError: if it was not asked or was already told.
    """
    if not 0 <= number < asked:
        raise ValueError(f"tell: proposal {number} was never asked ({asked} were)")
    if number in told:
        raise ValueError(f"tell: proposal {number} was already told")
