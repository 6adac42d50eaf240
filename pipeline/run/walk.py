"""Which candidates of a group are finished, failed or stopped: a function of answers, whatever their order of arrival.

Shape legend: n samples of a task, k of them seen.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.plan.groups import Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.plan.stops import FIRST, StopRule, stop_rule
from pipeline.records.journal import GroupKey
from pipeline.records.ledger import Ledger
from pipeline.records.sample_order import SampleOrder
from pipeline.run.forecast import proposed
from pipeline.run.hardest_first import RACES, hardest_first, spread_numbers
from pipeline.run.paired_race import is_worse
from pipeline.run.selection import (
    Candidate,
    References,
    Stopped,
    answered,
    cause_of,
    complete,
    judge,
    objective_values,
    references,
)
from search.proposer import Proposal

#: Candidates of a grid that may be scored at the same time: each is compared with those that were decided before.
_WINDOW = 32
#: In place of a stage: all samples, as in a search without stops.
IN_FULL = -1


class Walk:
    """The candidates of one group, decided one after another in a fixed order.

    The first candidates are scored in full; of a grid, those that are far from each other. They give the order of
    samples. Each later one is scored stage by stage and compared after each with the best finished ones among those
    that were decided `window` places before it or earlier. So nothing depends on which answer came first.

    Attributes:
        proposals: of the group; may grow.
        final: number -> the candidate, as far as the answers tell.
        order: of samples, once the first candidates are final; None before, or if every candidate is scored in full.
    """

    def __init__(
        self, group: Group, rule: StopRule, proposals: Sequence[Proposal], ledger: Ledger, refs: References
    ) -> None:
        """Start before the first candidate.

        Args:
            group: with its template.
            rule: how candidates are stopped.
            proposals: of the group; may grow.
            ledger: the answers; may grow.
            refs: the values that normalise the objectives.
        """
        self.group, self.proposals = group, proposals
        self._race, self._ledger, self._refs = rule.race, ledger, refs
        self._tasks = validation_tasks(group)
        self.final: dict[int, Candidate] = {}
        self.order: SampleOrder | None = None
        self._in_full = bool(rule.why_not)
        grid = group.search.sampler == "grid"
        self._window = _WINDOW if grid else group.search.in_flight
        self._first = spread_numbers(group.space, FIRST) if grid and not self._in_full else list(range(FIRST))
        self._settled = 0  # this many candidates, in the order of decision, are final
        self._scored: dict[int, int] = {}  # number -> stages that are scored
        self._fronts: list[tuple[int, tuple[Candidate, ...]]] = [(-1, ())]  # the best until a rank, at each change
        self._usual: dict[str, npt.NDArray[np.float64]] = {}  # task -> mean outcomes of the first candidates (n,)

    @classmethod
    def of(cls, group: Group, plan: Plan, proposals: Sequence[Proposal], ledger: Ledger, refs: References) -> "Walk":
        """Start the candidates of a group of a plan."""
        return cls(group, stop_rule(group, plan, ledger.identity), proposals, ledger, refs)

    @property
    def stops(self) -> bool:
        """Whether candidates may be stopped."""
        return not self._in_full

    def ready(self) -> Iterator[int]:
        """Yield the candidates that may be scored now and are not final, in the order of decision."""
        while self._settled < len(self.proposals) and (found := self.final.get(self._number(self._settled))):
            self._note(self._settled, found)
            self._settled += 1
        if self.order is None and self.stops and len(self._first) <= self._settled < len(self.proposals):
            self._learn()
        stop = self._settled + self._window if self._settled >= len(self._first) else len(self._first)
        for rank in range(self._settled, len(self.proposals) if self._in_full else min(stop, len(self.proposals))):
            number = self._number(rank)
            if number not in self.final and number < len(self.proposals):
                yield number

    def settle(self) -> "Walk":
        """Decide as far as the answers allow."""
        while any([self.advance(number) is None for number in self.ready()]):
            pass
        return self

    def candidates(self) -> list[Candidate]:
        """Return the final candidates in the order of their proposals."""
        return [self.final[number] for number in sorted(self.final)]

    def _number(self, rank: int) -> int:
        """Return the number of the candidate that is decided at a place: first the spread ones, then the others."""
        if rank < len(self._first):
            return self._first[rank]
        number = rank - len(self._first)
        for first in sorted(self._first):
            number += first <= number
        return number

    def _rank(self, number: int) -> int:
        if number in self._first:
            return self._first.index(number)
        return number + sum(first > number for first in self._first)

    def _note(self, rank: int, candidate: Candidate) -> None:
        """Note the best candidates among those decided until a rank; of equals, the first."""
        best, values = self._fronts[-1][1], candidate.values
        if values is not None and not any(_at_least(other, values) for other in best):
            rest = tuple(other for other in best if not _at_least(candidate, other.values or ()))
            self._fronts.append((rank, (*rest, candidate)))

    def _learn(self) -> None:
        """Order the samples by the outcomes of the first candidates, if they are all right or wrong."""
        done = [c for number in self._first if (c := self.final[number]).values is not None]
        found = {
            task: [o for c in done if (o := self._ledger.outcomes(c.recipe_id, task, "val")) is not None]
            for task in self._tasks
        }
        if not done or any(o.dtype != np.bool_ for some in found.values() for o in some):
            self._in_full = True
            return
        self._usual = {task: np.mean(some, axis=0) for task, some in found.items()}
        errors = {task: len(done) * (1 - usual_n) for task, usual_n in self._usual.items()}
        identity = self._ledger.identity
        salts = {task: identity.tasks[task][0] for task in self._tasks}
        order = hardest_first(errors, self._weights(), identity.together, salts, race=bool(self._race))
        if order.stages == 1:
            self._in_full = True
            return
        self.order = order
        self._ledger.add_order(order)

    def _weights(self) -> dict[str, float]:
        """Return what one error on each task costs of the objectives, if all else is right."""
        right = dict.fromkeys(self._tasks, 1.0)
        most = sum(self._values(right))
        return {t: (most - sum(self._values({**right, t: 0.0}))) / len(self._usual[t]) for t in self._tasks}

    def _values(self, means: Mapping[str, float]) -> tuple[float, ...]:
        return objective_values(self.group, means, self._ledger, self._refs)

    def advance(self, number: int) -> int | None:
        """Decide about a candidate of `ready` as far as the answers allow.

        Returns:
            The stage whose answers are needed next, or `IN_FULL`; None once the candidate is final.
        """
        proposal = self.proposals[number]
        if self.order is None or number in self._first:
            if not answered(self.group, proposal, self._ledger):
                return IN_FULL
            self.final[number] = judge(self.group, proposal, self._ledger, self._refs)
            return None
        recipe = self.group.recipe(proposal.point)
        candidate = Candidate(self.group, proposal, recipe, self._ledger.recipe_id(recipe), None, split=self.order.name)
        for stage in range(self._scored.get(number, 0), self.order.stages):
            if self._ledger.missing(recipe, self._tasks, self.order.name, stage):
                return stage
            self._scored[number] = stage + 1
            if failure := self._ledger.failure(candidate.recipe_id, self._tasks, self.order.name, stage):
                self.final[number] = replace(candidate, failure=cause_of(failure))
                return None
            if stage + 1 < self.order.stages and (stopped := self._stopped(candidate, self.order, stage + 1)):
                self.final[number] = replace(candidate, stopped=stopped)
                return None
        self.final[number] = judge(self.group, proposal, self._ledger, self._refs, self.order.name)
        return None

    def _stopped(self, candidate: Candidate, order: SampleOrder, stages: int) -> Stopped | None:
        """Return why a candidate is stopped after its first stages; None if it may still be chosen or on the front."""
        seen = {t: self._ledger.outcomes_so_far(candidate.recipe_id, t, order, stages) for t in self._tasks}
        right = {t: float(outcomes_k.sum()) for t, outcomes_k in seen.items()}
        size = {t: len(self._usual[t]) for t in self._tasks}
        bounds = self._values({t: (right[t] + size[t] - len(seen[t])) / size[t] for t in self._tasks})
        for incumbent in self._incumbents(candidate.proposal.number):
            rule = "exact" if _dominates(incumbent, bounds) else ""
            if not rule and self._race and stages <= RACES and self._loses(seen, incumbent, order):
                rule = "race"
            if rule:
                usual = {t: float(self._usual[t][order.rows[t][len(seen[t]) :]].sum()) for t in self._tasks}
                estimate = self._values({t: (right[t] + usual[t]) / size[t] for t in self._tasks})
                number, count = incumbent.proposal.number, sum(map(len, seen.values()))
                return Stopped(rule, number, stages, count, order.samples, bounds, estimate)
        return None

    def _incumbents(self, number: int) -> tuple[Candidate, ...]:
        """Return the best of the candidates with which one is compared."""
        until = max(len(self._first) - 1, self._rank(number) - self._window)
        return self._fronts[bisect_right(self._fronts, until, key=lambda pair: pair[0]) - 1][1]

    def _loses(self, seen: Mapping[str, npt.NDArray[np.bool_]], incumbent: Candidate, order: SampleOrder) -> bool:
        """Whether a candidate's random samples show that it is worse than a finished one."""
        whole = {t: self._ledger.outcomes(incumbent.recipe_id, t, incumbent.split) for t in self._tasks}
        known = {t: outcomes_n for t, outcomes_n in whole.items() if outcomes_n is not None}
        means = {t: float(outcomes_n.mean()) for t, outcomes_n in known.items()}
        differences = {t: seen[t] - 1.0 * known[t][order.rows[t][: len(seen[t])]] for t in self._tasks}
        sizes = {t: len(outcomes_n) for t, outcomes_n in known.items()}
        comparisons = RACES * max(1, proposed(self.group) - 1)
        return is_worse(differences, self._slopes(means), sizes, self._race / comparisons)

    def _slopes(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return the change of the objective with each task's accuracy."""
        step = 1e-3
        ends = {t: [self._values({**means, t: means[t] + s})[0] for s in (-step, step)] for t in means}
        return {t: (high - low) / (2 * step) for t, (low, high) in ends.items()}


def _at_least(candidate: Candidate, values: Sequence[float]) -> bool:
    return candidate.values is not None and all(a >= b for a, b in zip(candidate.values, values, strict=True))


def _dominates(candidate: Candidate, bounds: Sequence[float]) -> bool:
    """Whether a candidate is at least as good in every objective and better in one than all that are below bounds."""
    return _at_least(candidate, bounds) and candidate.values != tuple(bounds)


def judge_all(
    plan: Plan, ledger: Ledger, proposals: Mapping[GroupKey, list[Proposal]]
) -> dict[GroupKey, list[Candidate]]:
    """Return the final candidates of every group but the references, in the order of the tables."""
    refs = references(plan, ledger, "val")
    judged: dict[GroupKey, list[Candidate]] = {}
    for planned in plan.searched:
        group = complete(planned, judged)
        if group is not None:
            judged[group.key] = Walk.of(group, plan, proposals.get(group.key, []), ledger, refs).settle().candidates()
    return judged
