"""The samplers: what each can do, how it is built, and its options with their defaults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

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
    """Seeds for one ask: `study` is the same for all asks of a search, `ask` differs."""

    study: int
    ask: int


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a sampler.

    Attributes:
        default: default value; None lets the sampler choose.
        low, high: bounds of a number, inclusive.
        choices: allowed words.
        warm_up: whether it is the number of first trials that are random, which must be below the number of trials.
    """

    default: OptionValue
    low: float = 0
    high: float = float("inf")
    choices: tuple[str, ...] = ()
    warm_up: bool = False

    def check(self, path: str, value: OptionValue) -> None:
        """Require a value of the right type and range; `path` is its field in errors.

        Raises:
            ValueError: if the value has the wrong type or is out of range.
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


Build: TypeAlias = Callable[[Seeds, Mapping[str, Any]], BaseSampler]


@dataclass(frozen=True, slots=True)
class Sampler:
    """A way to choose points.

    Attributes:
        build: makes Optuna's sampler for one ask from checked options; None for the grid.
        several_objectives: whether it can search for a front.
        categorical: whether it can search `Choice` dimensions.
        remembers: whether an ask writes notes into the study that later asks read.
        options: name -> option.
    """

    build: Build | None
    several_objectives: bool = True
    categorical: bool = True
    remembers: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)

    def resolve(self, name: str, given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Return the checked options, with defaults.

        Args:
            name: name of this sampler, for errors.
            given: options of the spec.

        Raises:
            ValueError: if an option is unknown, has the wrong type or is out of range.
        """
        for key, value in given.items():
            if key not in self.options:
                raise unknown_name(f"sampler {name}: option", key, self.options)
            self.options[key].check(f"sampler {name}: option {key}", value)
        return {key: given.get(key, option.default) for key, option in self.options.items()}


def is_spread(options: Mapping[str, OptionValue]) -> bool:
    """Whether the first `startup_trials` points fill the space evenly (`search.design`), instead of being random."""
    return options.get("startup") == "spread"


def _qmc(seeds: Seeds, o: Mapping[str, Any]) -> BaseSampler:
    # All asks of a search share one scrambled sequence, hence the study's seed. The first point is random.
    return QMCSampler(
        qmc_type=o["sequence"],
        scramble=True,
        seed=seeds.study,
        independent_sampler=RandomSampler(seed=seeds.ask),
        warn_independent_sampling=False,
    )


def _tpe(seeds: Seeds, o: Mapping[str, Any]) -> BaseSampler:
    return TPESampler(seed=seeds.ask, n_startup_trials=o["startup_trials"], n_ei_candidates=o["candidates"])


def _gp(seeds: Seeds, o: Mapping[str, Any]) -> BaseSampler:
    # Points of a design are counted by the asks; the model is then fitted to those of them that are scored.
    random = 1 if is_spread(o) else o["startup_trials"]
    return GPSampler(seed=seeds.ask, n_startup_trials=random, warn_independent_sampling=False)


def _cmaes(seeds: Seeds, o: Mapping[str, Any]) -> BaseSampler:
    return CmaEsSampler(
        seed=seeds.ask,
        n_startup_trials=o["startup_trials"],
        popsize=o["population_size"],
        warn_independent_sampling=False,
    )


#: Points that an ask draws or compares at once; more are taken for a typing error.
_MOST = 10_000
_STARTUP = Option(10, low=1, warm_up=True)
_GENETIC = {"population_size": Option(50, low=2, high=_MOST, warm_up=True), "crossover_prob": Option(0.9, high=1)}

#: Every sampler by name; the spec's validation derives from it.
SAMPLERS: dict[str, Sampler] = {
    "grid": Sampler(None),
    "random": Sampler(lambda seeds, _: RandomSampler(seed=seeds.ask)),
    "qmc": Sampler(_qmc, remembers=True, options={"sequence": Option("sobol", choices=("sobol", "halton"))}),
    "tpe": Sampler(_tpe, options={"startup_trials": _STARTUP, "candidates": Option(24, low=1, high=_MOST)}),
    "gp": Sampler(_gp, options={"startup_trials": _STARTUP, "startup": Option("random", choices=("random", "spread"))}),
    "cmaes": Sampler(
        _cmaes,
        several_objectives=False,
        categorical=False,
        remembers=True,
        options={"startup_trials": Option(1, low=1, warm_up=True), "population_size": Option(None, low=2, high=_MOST)},
    ),
    "nsga2": Sampler(lambda seeds, o: NSGAIISampler(seed=seeds.ask, **o), remembers=True, options=_GENETIC),
    "nsga3": Sampler(lambda seeds, o: NSGAIIISampler(seed=seeds.ask, **o), remembers=True, options=_GENETIC),
}
