"""Search by Optuna's samplers, with several candidates in flight, repeatable and exactly resumable.

Three decisions make a resumed search continue as if it had never stopped:

1. Every ask has a new sampler, seeded by (seed, number). A sampler reads everything else from the study, so a crash
   loses no state of a random generator or warm start.
2. Each proposal records the earlier proposals that were in flight when it was asked (`state`), so a replay repeats the
   order of asks and tells without knowing the number of workers.
3. A replay repeats this order on a new study and pins every trial to its recorded point; the journal wins over a new
   computation. CMA-ES, NSGA and QMC write notes into the study when asked (a distribution, a generation, an index), so
   a replay asks them again, in 1 to 4 ms each. The other samplers need only the recorded point, and no model is fitted
   again (a GP takes 0.3 s a point). The journal does not keep the notes: those of CMA-ES are pickles, and loading a
   pickle from a file runs any code in it.
"""

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.design import spread
from search.names import unknown_name
from search.proposer import FixedProposer, Json, Outcome, Proposal, Proposer, check_in_flight, outcomes_by_number
from search.samplers import SAMPLERS, OptionValue, Sampler, Seeds, is_spread
from search.space import Choice, Point, Space


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How to search a space.

    Attributes:
        sampler: one of `SAMPLERS`.
        trials: number of points to propose; None for a grid, which proposes each point once.
        num_objectives: number of values of each outcome.
        seed: a whole number from 0; the same seed and outcomes give the same points.
        options: options of the sampler that differ from the defaults.
    """

    sampler: str = "grid"
    trials: int | None = None
    num_objectives: int = 1
    seed: int = 0
    options: Mapping[str, OptionValue] = field(default_factory=dict)


def make_proposer(space: Space, config: SearchConfig) -> Proposer:
    """Return the proposer of a configuration.

    Raises:
        ValueError: if the sampler is unknown or cannot search the space, an option is wrong, or a grid is continuous.

    Example:
        >>> from search.space import Float
        >>> space = Space((Float("alpha", 0.0, 1.0, step=0.5),))
        >>> grid = make_proposer(space, SearchConfig())
        >>> [proposal.point for proposal in iter(grid.ask, None)]
        [{'alpha': 0.0}, {'alpha': 0.5}, {'alpha': 1.0}]
        >>> search = make_proposer(space, SearchConfig("tpe", trials=20))
        >>> proposal = search.ask()
        >>> search.tell(Outcome(proposal.number, (0.75,)))
    """
    sampler = _checked(space, config)
    return FixedProposer(space.grid()) if sampler.build is None else OptunaProposer(space, config)


class OptunaProposer:
    """Ask and tell on an in-memory Optuna study in which every objective is maximised.

    A point may be proposed twice, especially on stepped or categorical dimensions. Each time counts as one of `trials`,
    as the samplers expect; the caller knows its score.
    """

    def __init__(self, space: Space, config: SearchConfig) -> None:
        """Check the configuration and start an empty study.

        Raises:
            ValueError: if the sampler is unknown, is the grid or cannot search the space, or an option is wrong.
        """
        self._sampler = _checked(space, config)
        if self._sampler.build is None or config.trials is None:
            raise ValueError(f"sampler: must be one of Optuna's, got {config.sampler!r}: use `make_proposer`")
        self._build = self._sampler.build
        self._options = self._sampler.resolve(config.sampler, config.options)
        self._space, self._trials, self._seed = space, config.trials, config.seed
        self._num_objectives = config.num_objectives
        self._distributions = space.optuna()
        startup = self._options.get("startup_trials")
        self._design = spread(space, startup) if is_spread(self._options) and isinstance(startup, int) else []
        self._asked = 0
        self._told: set[int] = set()
        self._in_flight: dict[int, None] = {}  # in ascending order, as they are asked
        with _quiet():
            self._study = optuna.create_study(directions=["maximize"] * config.num_objectives)

    def ask(self) -> Proposal | None:
        """Return the next point, or None after `trials` points."""
        if self._asked == self._trials:
            return None
        pending = _runs(self._in_flight)
        point = self._ask(self._designed() or self._new_sampler())
        return Proposal(self._asked - 1, point, {"pending": pending})

    def tell(self, outcome: Outcome) -> None:
        """Report values, or None for a candidate that failed: samplers then ignore its point.

        Raises:
            ValueError: if the number is not in flight, or there is not one finite value for each objective.
        """
        check_in_flight(outcome.number, self._asked, self._told)
        values = outcome.values
        if values is not None and (len(values) != self._num_objectives or not all(map(math.isfinite, values))):
            raise ValueError(
                f"tell: proposal {outcome.number} must have {self._num_objectives} finite values, or None if it "
                f"failed, got {values}"
            )
        with _quiet():
            if values is None:
                self._study.tell(outcome.number, state=TrialState.FAIL)
            else:
                self._study.tell(outcome.number, list(values))
        self._told.add(outcome.number)
        del self._in_flight[outcome.number]

    def replay(self, proposals: Sequence[Proposal], outcomes: Sequence[Outcome]) -> None:
        """Repeat the recorded asks and tells in the recorded order.

        Raises:
            ValueError: if this proposer was used before, numbers have a gap, a point is not in this space, or an
                outcome that preceded an ask is missing.
        """
        if self._asked:
            raise ValueError(f"replay: needs a new proposer, this one was asked {self._asked} times")
        untold = outcomes_by_number(outcomes)
        for proposal in proposals:
            for number in self._told_before(proposal):
                if number not in untold:
                    raise ValueError(
                        f"replay: proposal {proposal.number} came after outcome {number}, which is missing"
                    )
                self.tell(untold.pop(number))
            self._space.check(proposal.point)
            sampler = self._new_sampler() if self._sampler.remembers else None
            self._ask(_Pinned(proposal.point, self._distributions, sampler))
        for number in sorted(untold):
            self.tell(untold[number])

    def _told_before(self, proposal: Proposal) -> list[int]:
        """Return the outcomes that were told between the ask before `proposal` and its own, in order."""
        pending = proposal.state.get("pending")
        if proposal.number != self._asked or not isinstance(pending, list) or self._asked >= self._trials:
            raise ValueError(
                f"replay: expected proposal {self._asked} of {self._trials} with its state, got {proposal}"
            )
        left = _numbers(pending)
        return [n for n in self._in_flight if n not in left]

    def _designed(self) -> BaseSampler | None:
        """Return what proposes the next point of the design, or None after the last."""
        rest = self._design[self._asked :]
        return _Pinned(rest[0], self._distributions, None) if rest else None

    def _new_sampler(self) -> BaseSampler:
        seed = int(np.random.SeedSequence((self._seed, self._asked)).generate_state(1)[0])
        with _quiet():
            return self._build(Seeds(self._seed, seed), self._options)

    def _ask(self, sampler: BaseSampler) -> Point:
        self._study.sampler = sampler
        with _quiet():
            params = self._study.ask(self._distributions).params
        self._in_flight[self._asked] = None
        self._asked += 1
        return {name: params[name] for name in self._distributions}


def _runs(numbers: Iterable[int]) -> list[Json]:
    """Write ascending numbers as [first, last] of each run without a gap: often one pair for a thousand in flight."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        follows = runs and runs[-1][1] == number - 1
        runs[-1:] = [(runs[-1][0], number)] if follows else [*runs[-1:], (number, number)]
    return [list(run) for run in runs]


def _numbers(runs: Sequence[Json]) -> set[int]:
    """Read the numbers that `_runs` wrote; journals of earlier versions list each number."""
    numbers: set[int] = set()
    for run in runs:
        first, last = run if isinstance(run, list) else (run, run)
        assert isinstance(first, int) and isinstance(last, int)
        numbers.update(range(first, last + 1))
    return numbers


class _Pinned(BaseSampler):
    """Returns a recorded point, after the sampler that chose it has written its notes into the study again.

    Optuna's `enqueue_trial` does not do this: since version 5 a pinned trial does not ask the sampler at all.
    """

    def __init__(self, point: Point, space: dict[str, BaseDistribution], sampler: BaseSampler | None) -> None:
        self._point, self._space, self._sampler = point, space, sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._sampler is not None:
            space = self._sampler.infer_relative_search_space(study, trial)
            self._sampler.sample_relative(study, trial, space)
        return self._space

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: object) -> dict[str, Any]:
        return dict(self._point)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, distribution: object) -> Any:
        raise AssertionError(f"{param_name}: every dimension is pinned and within its range")


def _checked(space: Space, config: SearchConfig) -> Sampler:
    """Return the configured sampler, after checking that it can search the space."""
    name = config.sampler
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)
    sampler = SAMPLERS[name]
    if config.num_objectives < 1:
        raise ValueError(f"objectives: there must be at least 1, got {config.num_objectives}")
    if config.num_objectives > 1 and not sampler.several_objectives:
        able = ", ".join(n for n, s in SAMPLERS.items() if s.several_objectives)
        raise ValueError(f"sampler {name}: one objective only, got {config.num_objectives}: for several use {able}")
    categorical = [d.name for d in space.dims if isinstance(d, Choice)]
    if categorical and not sampler.categorical:
        able = ", ".join(n for n, s in SAMPLERS.items() if s.categorical)
        raise ValueError(
            f"sampler {name}: numeric ranges only, but {categorical} list their values: give a range, or use {able}"
        )
    _check_trials(space, config, sampler)
    return sampler


def _check_trials(space: Space, config: SearchConfig, sampler: Sampler) -> None:
    """Require a number of trials that fits the sampler, and a seed from 0."""
    if config.seed < 0:
        raise ValueError(f"seed: must be at least 0, got {config.seed}")
    options = sampler.resolve(config.sampler, config.options)
    if sampler.build is None:
        if config.trials is not None:
            raise ValueError(f"trials: a grid proposes every point once, got {config.trials}: leave it out")
        return
    if not space.dims:
        raise ValueError(f"sampler {config.sampler}: the space has no dimensions, so there is nothing to search")
    if config.trials is None or config.trials < 1:
        raise ValueError(f"trials: sampler {config.sampler} needs a number of at least 1, got {config.trials}")
    for key, option in sampler.options.items():
        value = options[key]
        if option.warm_up and isinstance(value, int) and value >= config.trials:
            # The sampler would never leave its random phase.
            raise ValueError(
                f"sampler {config.sampler}: option {key} must be below trials = {config.trials}, got {value}: "
                f"the first {value} points are random; raise trials, lower {key}, or use random"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's notices of new studies and experimental classes inside the block."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)
