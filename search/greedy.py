"""Greedy soup: which of many models to average, one decision after the other (Wortsman et al. 2022, recipe 1)."""

from collections.abc import Sequence

from search.proposer import Outcome, Proposal, check_in_flight
from search.space import Point


class GreedyProposer:
    """First each model alone; then, from the best to the worst, the soup so far with the next model.

    A model stays in the soup where the objective is strictly higher than that of the soup before; of equals, the one
    named first is tried first. A failed model never enters. Each ask beyond the first round needs all earlier outcomes,
    so a driver must tell every outcome before it asks again.
    """

    def __init__(self, names: Sequence[str], num_objectives: int = 1) -> None:
        """Take the names of the dimensions that switch a model on (1) or off (0).

        Raises:
            ValueError: fewer than two models, or several objectives.
        """
        if len(names) < 2:
            raise ValueError(f"greedy: needs at least 2 models to choose from, got {len(names)}")
        if num_objectives != 1:
            raise ValueError(f"greedy: ranks models by one objective, got {num_objectives}")
        self._names = tuple(names)
        self._asked: list[Point] = []
        self._values: dict[int, float] = {}
        self._told: set[int] = set()

    def ask(self) -> Proposal | None:
        """The next soup; None once every model has been tried.

        Raises:
            ValueError: an earlier outcome is missing.
        """
        number = len(self._asked)
        if len(self._told) < number:
            raise ValueError(f"greedy: proposal {number} needs the outcomes of all before it, got {len(self._told)}")
        point = self._next()
        if point is None:
            return None
        self._asked.append(point)
        return Proposal(number, dict(point))

    def _next(self) -> Point | None:
        number, count = len(self._asked), len(self._names)
        if number < count:
            return self._soup({number})
        ranked = sorted((i for i in range(count) if i in self._values), key=lambda i: -self._values[i])
        step = number - count + 1
        if step >= len(ranked):
            return None
        return self._soup(self._kept(ranked, step) | {ranked[step]})

    def _kept(self, ranked: Sequence[int], steps: int) -> set[int]:
        """The models in the soup after the decisions on the best `steps` of them."""
        kept, best = {ranked[0]}, self._values[ranked[0]]
        for step in range(1, steps):
            value = self._values.get(len(self._names) + step - 1)
            if value is not None and value > best:
                kept, best = kept | {ranked[step]}, value
        return kept

    def _soup(self, models: set[int]) -> Point:
        return {name: int(i in models) for i, name in enumerate(self._names)}

    def tell(self, outcome: Outcome) -> None:
        """Report a soup's objective.

        Raises:
            ValueError: the number was not asked, or was told before; another number of values than one.
        """
        check_in_flight(outcome.number, len(self._asked), self._told)
        if outcome.values is not None and len(outcome.values) != 1:
            raise ValueError(f"greedy: must be told one value, got {len(outcome.values)}")
        self._told.add(outcome.number)
        if outcome.values is not None:
            self._values[outcome.number] = outcome.values[0]

    def replay(self, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
        """Ask and tell again what is recorded.

        Raises:
            ValueError: a recorded point is not what these outcomes lead to, or an outcome that it needs is missing.
        """
        known = {outcome.number: outcome for outcome in outcomes}
        for recorded in proposals:
            own = self.ask()
            if own is None or (own.number, own.point) != (recorded.number, recorded.point):
                raise ValueError(f"replay: proposal {recorded.number} was {recorded.point}, but the search gives {own}")
            if recorded.number in known:
                self.tell(known[recorded.number])
