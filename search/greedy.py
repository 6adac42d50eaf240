"""Greedy soup: chooses which models to average, one decision at a time (Wortsman et al. 2022, recipe 1)."""

from collections.abc import Sequence

from search.proposer import Outcome, Proposal, check_in_flight, replay_in_order
from search.space import Point


class GreedyProposer:
    """Proposes each model alone, then, from the best to the worst, the current soup plus the next model.

    A model enters the soup if the objective rises strictly; of equal models, the one named first is tried first. A
    failed model never enters. After the first round each ask needs all earlier outcomes, so a driver must tell every
    outcome before it asks again.

    Example:
        >>> proposer = GreedyProposer(["cats", "dogs"])
        >>> for accuracy in (0.6, 0.7, 0.8):
        ...     proposal = proposer.ask()
        ...     proposer.tell(Outcome(proposal.number, (accuracy,)))
        >>> proposal.point, proposer.ask()
        ({'cats': 1, 'dogs': 1}, None)
    """

    def __init__(self, names: Sequence[str], num_objectives: int = 1) -> None:
        """Create the proposer.

        Args:
            names: dimensions that include a model (1) or leave it out (0).
            num_objectives: must be 1.

        Raises:
            ValueError: if there are fewer than two models or several objectives.
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
        """Return the next soup, or None once every model has been tried.

        Raises:
            ValueError: if an earlier outcome is missing.
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
        """Return the models in the soup after the decisions on the best `steps` models."""
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
            ValueError: if the number was not asked or was already told, or there is not exactly one value.
        """
        check_in_flight(outcome.number, len(self._asked), self._told)
        if outcome.values is not None and len(outcome.values) != 1:
            raise ValueError(f"greedy: an outcome must have one value, got {len(outcome.values)}")
        self._told.add(outcome.number)
        if outcome.values is not None:
            self._values[outcome.number] = outcome.values[0]

    def replay(self, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
        """Repeat the recorded asks and tells.

        Raises:
            ValueError: if a recorded point does not follow from the outcomes, or an outcome that it needs is missing.
        """
        replay_in_order(self, proposals, outcomes)
