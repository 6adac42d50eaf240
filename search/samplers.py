"""The samplers there are: what each can do, how it is built, and its options with their defaults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from search.names import unknown_name

OptionValue: TypeAlias = int | float | str | None


@dataclass(frozen=True, slots=True)
class Seeds:
    """Seeds for one ask: `study` is the same for every ask of a search, `ask` is the ask's own."""

    study: int
    ask: int


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a sampler.

    Attributes:
        default: its value where the spec gives none; None lets the sampler choose.
        low, high: bounds of a number, inclusive.
        choices: the values of a string.
        warm_up: it is the number of first trials that are drawn at random, so it must be below the number of trials.
    """

    default: OptionValue
    low: float = 0
    high: float = float("inf")
    choices: tuple[str, ...] = ()
    warm_up: bool = False

    def check(self, path: str, value: OptionValue) -> None:
        """Require a value of the right type and range.

        Raises:
            ValueError: naming `path`, the rule and the value.
        """
        if self.choices:
            if value not in self.choices:
                raise unknown_name(path, str(value), self.choices)
            return
        if value is None and self.default is None:
            return
        numeric = (int, float) if isinstance(self.default, float) else (int,)
        if isinstance(value, bool) or not isinstance(value, numeric) or not self.low <= value <= self.high:
            kind = "a number" if float in numeric else "a whole number"
            raise ValueError(f"{path}: must be {kind} in [{self.low}, {self.high}], got {value!r}")


Build: TypeAlias = Callable[[Seeds, Mapping[str, OptionValue]], BaseSampler]


@dataclass(frozen=True, slots=True)
class Sampler:
    """A way to choose points.

    Attributes:
        build: makes Optuna's sampler for one ask; None for the grid, which needs none.
        several_objectives: whether it can search for a front.
        categorical: whether it can handle `Choice` dimensions.
        remembers: whether an ask leaves notes in the study, beyond its point, that later asks read.
        options: name -> option.
    """

    build: Build | None
    several_objectives: bool = True
    categorical: bool = True
    remembers: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)

    def resolve(self, name: str, given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """The options with defaults filled in.

        Args:
            name: this sampler's name, for errors.
            given: the options that the spec gives.

        Raises:
            ValueError: an option is unknown, or of the wrong type or range.
        """
        for key, value in given.items():
            if key not in self.options:
                raise unknown_name(f"sampler {name}: option", key, self.options)
            self.options[key].check(f"sampler {name}: option {key}", value)
        return {key: given.get(key, option.default) for key, option in self.options.items()}


def _qmc(seeds: Seeds, o: Mapping[str, OptionValue]) -> BaseSampler:
    # One scrambled sequence a search, hence the study's seed. The first point comes before the sequence and is random.
    return QMCSampler(
        qmc_type=str(o["sequence"]),
        scramble=True,
        seed=seeds.study,
        independent_sampler=RandomSampler(seed=seeds.ask),
        warn_independent_sampling=False,
    )


def _tpe(seeds: Seeds, o: Mapping[str, OptionValue]) -> BaseSampler:
    return TPESampler(seed=seeds.ask, n_startup_trials=_int(o["startup_trials"]), n_ei_candidates=_int(o["candidates"]))


def _gp(seeds: Seeds, o: Mapping[str, OptionValue]) -> BaseSampler:
    return GPSampler(seed=seeds.ask, n_startup_trials=_int(o["startup_trials"]), warn_independent_sampling=False)


def _cmaes(seeds: Seeds, o: Mapping[str, OptionValue]) -> BaseSampler:
    size = o["population_size"]
    return CmaEsSampler(
        seed=seeds.ask,
        n_startup_trials=_int(o["startup_trials"]),
        popsize=None if size is None else _int(size),
        warn_independent_sampling=False,
    )


def _nsga2(seeds: Seeds, o: Mapping[str, OptionValue]) -> BaseSampler:
    return NSGAIISampler(
        seed=seeds.ask,
        population_size=_int(o["population_size"]),
        crossover_prob=_float(o["crossover_prob"]),
    )


def _nsga3(seeds: Seeds, o: Mapping[str, OptionValue]) -> BaseSampler:
    return NSGAIIISampler(
        seed=seeds.ask,
        population_size=_int(o["population_size"]),
        crossover_prob=_float(o["crossover_prob"]),
    )


def _int(value: OptionValue) -> int:
    assert isinstance(value, int)
    return value


def _float(value: OptionValue) -> float:
    assert isinstance(value, int | float)
    return float(value)


_STARTUP = Option(10, low=1, warm_up=True)
_GENETIC = {"population_size": Option(50, low=2, warm_up=True), "crossover_prob": Option(0.9, high=1)}

#: Every sampler by name; the spec's validation and its schema derive from this.
SAMPLERS: dict[str, Sampler] = {
    "grid": Sampler(None),
    "random": Sampler(lambda seeds, _: RandomSampler(seed=seeds.ask)),
    "qmc": Sampler(_qmc, remembers=True, options={"sequence": Option("sobol", choices=("sobol", "halton"))}),
    "tpe": Sampler(_tpe, options={"startup_trials": _STARTUP, "candidates": Option(24, low=1)}),
    "gp": Sampler(_gp, options={"startup_trials": _STARTUP}),
    "cmaes": Sampler(
        _cmaes,
        several_objectives=False,
        categorical=False,
        remembers=True,
        options={"startup_trials": Option(1, low=1, warm_up=True), "population_size": Option(None, low=2)},
    ),
    "nsga2": Sampler(_nsga2, remembers=True, options=_GENETIC),
    "nsga3": Sampler(_nsga3, remembers=True, options=_GENETIC),
}
