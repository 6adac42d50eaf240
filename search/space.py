"""The dimensions of a search, and the space that they span."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

Value: TypeAlias = float | int | str
Point: TypeAlias = dict[str, Value]

#: All points of a grid are evaluated; a larger one is taken for a typing error.
MAX_GRID = 1_000_000
#: Steps of a range that a sampler searches: Optuna computes with 28 digits, and no range needs finer steps.
_MAX_STEPS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in [low, high]; with `step`, one of low, low + step, ..., high; with `log`, sampled on a log scale.

    Raises:
        ValueError: if a bound is not finite, low exceeds high, the step does not divide the range, or log has low <= 0.
    """

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds and the step."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(
                f"{self.name}: low and high must be finite with low <= high, got {self.low} and {self.high}"
            )
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(
                f"{self.name}: a log scale needs low > 0 and no step, got low {self.low} and step {self.step}"
            )
        if self.step is not None:
            _check_step(self.name, self.high - self.low, self.step)

    def values(self) -> list[Value]:
        """Return low, low + step, ..., high, rounded to 12 digits so that 3 steps of 0.1 are 0.3.

        Raises:
            ValueError: if there is no step.
        """
        if self.step is None:
            raise ValueError(
                f"{self.name}: a grid needs a step: [{self.low}, {self.high}] is continuous; "
                "give `step`, list the values, or choose another sampler"
            )
        count = round((self.high - self.low) / self.step) + 1
        if count > MAX_GRID:
            raise ValueError(f"{self.name}: a grid has at most {MAX_GRID:,} values, got {count:,}: give a larger step")
        return [float(f"{self.low + i * self.step:.12g}") for i in range(count)]

    def contains(self, value: Value) -> bool:
        """Whether `value` is a number within the bounds and on a step, to 8 digits."""
        if not isinstance(value, float | int) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-8

    def distribution(self) -> BaseDistribution:
        """Return the same range as Optuna's distribution."""
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the listed values; samplers see no order in them.

    Raises:
        ValueError: if no value is listed, one is listed twice, or one is not finite.
    """

    name: str
    choices: tuple[Value, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.choices:
            raise ValueError(f"{self.name} grid empty: give at least one value")
        if len(set(self.choices)) < len(self.choices):
            twice = [value for value, count in Counter(self.choices).items() if count > 1]
            raise ValueError(f"{self.name}: each value may be listed once, got {_few(twice)} more than once")
        if bad := [v for v in self.choices if isinstance(v, float) and not math.isfinite(v)]:
            raise ValueError(f"{self.name}: numbers must be finite, got {_few(bad)}")

    def values(self) -> list[Value]:
        """Return the listed values."""
        return list(self.choices)

    def contains(self, value: Value) -> bool:
        """Whether `value` is one of the listed values."""
        return value in self.choices

    def distribution(self) -> BaseDistribution:
        """Return the same choice as Optuna's distribution."""
        return CategoricalDistribution(self.choices)


Dimension: TypeAlias = Float | Choice


@dataclass(frozen=True, slots=True)
class GridPoints(Sequence[Point]):
    """The points of a grid in declared order, the first dimension slowest; each is made when it is asked for.

    Attributes:
        axes: dimension -> its values.
    """

    axes: Mapping[str, Sequence[Value]]

    def __len__(self) -> int:
        """Return the number of points."""
        return math.prod(map(len, self.axes.values()))

    def __iter__(self) -> Iterator[Point]:
        """Iterate over the points."""
        return (dict(zip(self.axes, point, strict=True)) for point in itertools.product(*self.axes.values()))

    @overload
    def __getitem__(self, place: int) -> Point: ...
    @overload
    def __getitem__(self, place: slice) -> list[Point]: ...
    def __getitem__(self, place: int | slice) -> Point | list[Point]:
        """Return a point, or a list of points."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        rest = range(len(self))[place]
        point: Point = {}
        for name, values in reversed(list(self.axes.items())):
            rest, own = divmod(rest, len(values))
            point[name] = values[own]
        return {name: point[name] for name in self.axes}


@dataclass(frozen=True, slots=True)
class Space:
    """The product of its dimensions; a space without dimensions has the one point {}.

    Raises:
        ValueError: if two dimensions share a name.

    Example:
        >>> Space((Choice("f", ("linear", "sqrt")), Float("beta", 0.0, 0.5, step=0.5))).grid()[:2]
        [{'f': 'linear', 'beta': 0.0}, {'f': 'linear', 'beta': 0.5}]
    """

    dims: tuple[Dimension, ...] = ()

    def __post_init__(self) -> None:
        """Check the names."""
        repeated = sorted(name for name, count in Counter(d.name for d in self.dims).items() if count > 1)
        if repeated:
            raise ValueError(f"space: names of dimensions must differ, got {repeated} more than once")

    def grid(self) -> GridPoints:
        """Return every point, in declared order: the first dimension varies slowest.

        Raises:
            ValueError: if a dimension is continuous, or there are more than `MAX_GRID` points.
        """
        axes = {d.name: d.values() for d in self.dims}
        if (size := math.prod(map(len, axes.values()))) > MAX_GRID:
            shown = f"{size:,}" if size < 10**12 else f"{float(min(size, 10**300)):.3g}"
            raise ValueError(f"grid: at most {MAX_GRID:,} points, got {shown}: list fewer values or use a sampler")
        return GridPoints(axes)

    def optuna(self) -> dict[str, BaseDistribution]:
        """Return name -> Optuna's distribution, in declared order."""
        return {d.name: d.distribution() for d in self.dims}

    def check(self, point: Mapping[str, Value]) -> None:
        """Require a point of this space.

        Raises:
            ValueError: if a dimension is missing, unknown or out of range.
        """
        if point.keys() != (names := {d.name for d in self.dims}):
            raise ValueError(f"point: its dimensions must be {sorted(names)}, got {sorted(point)}")
        for dim in self.dims:
            if not dim.contains(point[dim.name]):
                raise ValueError(f"point: {dim.name} must be in {dim}, got {point[dim.name]!r}")


def _check_step(name: str, width: float, step: float) -> None:
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"{name}: step must be positive, got {step}")
    steps = width / step
    if steps > _MAX_STEPS:
        raise ValueError(f"{name}: at most {_MAX_STEPS:,} steps, got {steps:.3g}: give a larger step, or none")
    # Optuna would only warn and lower `high`, and never try the value that the user asked for.
    if not math.isclose(steps, round(steps), rel_tol=1e-9, abs_tol=1e-9):
        raise ValueError(f"{name}: step must divide high - low = {width}, got {step}")


def _few(values: Sequence[Value]) -> str:
    return ", ".join(map(str, values[:5])) + ", ..." * (len(values) > 5)
