"""Bootstrap confidence intervals over samples, paired by sample for differences.

Shape legend: N samples of a task, R resamples, V distinct values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaskOutcomes:
    """Outcomes of each sample of one task, in the data set's order.

    Attributes:
        task: name; cells of the same task hold the same samples.
        a: (N,) outcomes of one model: 0 or 1 for accuracy, any number for rewards.
        b: (N,) outcomes of the model to compare with, or None.
    """

    task: str
    a: npt.ArrayLike
    b: npt.ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: the estimate from the samples themselves.
        low, high: the ends of the interval.
        n: number of samples, summed over tasks.
        lower_is_better: whether a smaller value is the better one.
    """

    value: float
    low: float
    high: float
    n: int
    lower_is_better: bool = field(default=False, repr=False)

    @property
    def verdict(self) -> Literal["better", "worse", "tie"]:
        """For a difference a - b: "better" or "worse" if 0 is outside the interval, else "tie"."""
        if self.low <= 0 <= self.high:
            return "tie"
        return "better" if (self.low > 0) != self.lower_is_better else "worse"


def paired_difference(
    cells: Sequence[TaskOutcomes], resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile bootstrap of the mean over cells of mean(a - b).

    Samples are resampled within each task, equally for all cells of the task and for a and b, as their errors are
    correlated. Tasks are independent and are not resampled: the claim is about these tasks.

    Args:
        cells: pairs of outcomes; several cells may share a task, for example one for each expert.
        resamples: number of bootstrap resamples.
        seed: seed of the random generator; the same seed gives the same interval.
        level: confidence, in (0, 1).

    Raises:
        ValueError: if there are no cells, a and b or two cells of a task differ in length, or a value is not finite.

    Example:
        >>> a, b = [1, 1, 1, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 1, 0, 1]
        >>> interval = paired_difference([TaskOutcomes("mnist", a, b)])
        >>> interval.value, interval.low, interval.high, interval.verdict
        (0.5, 0.125, 0.875, 'better')
    """
    differences = []
    for cell in cells:
        if cell.b is None:
            raise ValueError(f"paired_difference: task {cell.task!r}: the cell has no b to compare with")
        a, b = _vector(cell.task, cell.a), _vector(cell.task, cell.b)
        if a.shape != b.shape:
            raise ValueError(f"paired_difference: task {cell.task!r}: a has {len(a)} samples and b has {len(b)}")
        differences.append((cell.task, a - b))
    return _bootstrap(differences, resamples, seed, level)


def mean_interval(cells: Sequence[TaskOutcomes], resamples: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean over cells of mean(a), resampled as in `paired_difference`.

    Args:
        cells: outcomes; b must be None.
        resamples: number of bootstrap resamples.
        seed: seed of the random generator.
        level: confidence, in (0, 1).

    Raises:
        ValueError: if there are no cells, one has a b, two cells of a task differ in length, or a value is not finite.

    Example:
        >>> mean_interval([TaskOutcomes("mnist", [1, 1, 1, 0, 1, 1, 1, 1])])
        Interval(value=0.875, low=0.625, high=1.0, n=8)
    """
    for cell in cells:
        if cell.b is not None:
            raise ValueError(f"mean_interval: task {cell.task!r}: the cell has a b: use paired_difference")
    return _bootstrap([(cell.task, _vector(cell.task, cell.a)) for cell in cells], resamples, seed, level)


def linearised_ratio(parts_N: npt.ArrayLike, sizes_N: npt.ArrayLike) -> Array:
    """Return values (N,) whose mean is a ratio of sums, and whose spread is that of the ratio over samples.

    The mean of `parts` alone is the ratio too, but its bootstrap would also count how sizes differ between samples. To
    first order, the bootstrap of these values is that of the ratio (Cochran 1977, section 6.4; Davison and Hinkley
    1997, section 2.7): value_i = ratio + part_i - ratio * size_i / mean size.

    Args:
        parts_N: (N,) the numerator's part of each sample, divided by the mean size.
        sizes_N: (N,) the denominator's part of each sample.

    Example:
        >>> linearised_ratio([0.5, 1.5], [1, 3])  # each sample has the ratio
        array([1., 1.])
    """
    parts, sizes = np.asarray(parts_N, np.float64), np.asarray(sizes_N, np.float64)
    ratio = parts.mean()
    linear: Array = ratio + parts - ratio * sizes / sizes.mean()
    return linear


def sample_means(outcomes_O: npt.ArrayLike, draws: int) -> Array:
    """Return one outcome for each sample, (N,): the mean of its draws, as completions of a prompt are correlated.

    Args:
        outcomes_O: (N * draws,) outcomes, the draws of a sample side by side.
        draws: of each sample.

    Raises:
        ValueError: if the number of outcomes is not a multiple of `draws`.

    Example:
        >>> sample_means([1, 0, 1, 1], draws=2)
        array([0.5, 1. ])
    """
    means_N: Array = np.asarray(outcomes_O, np.float64).reshape(-1, draws).mean(axis=1)
    return means_N


def percentile_interval(value: float, resampled_R: Array, n: int, level: float = 0.95) -> Interval:
    """Return an estimate with the percentile interval of its bootstrap resamples.

    The bounds are rounded to 12 decimals, since they decide between verdicts and floating point leaves noise around 0.

    Args:
        value: the estimate from the samples themselves.
        resampled_R: (R,) the same estimate in each resample.
        n: number of distinct samples.
        level: confidence, in (0, 1).
    """
    low, high = np.quantile(resampled_R, [(1 - level) / 2, (1 + level) / 2]).round(12)
    return Interval(float(value), float(low), float(high), n)


def _bootstrap(cells: list[tuple[str, Array]], resamples: int, seed: int, level: float) -> Interval:
    """Return the mean over cells of their means, with its percentile interval."""
    if not cells:
        raise ValueError("interval: needs at least one cell, got none")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"interval: needs resamples >= 1 and level in (0, 1), got {resamples} and {level}")
    totals = _totals(cells)
    rng = np.random.default_rng(seed)
    value, means_R = sum(float(total_N.mean()) for total_N in totals.values()) / len(cells), np.zeros(resamples)
    # Resample the non-negative direction, so that a - b and b - a get mirrored intervals and the same verdict.
    sign = -1.0 if value < 0 else 1.0
    for total_N in totals.values():
        means_R += sign * _resampled_means(sign * total_N, resamples, rng) / len(cells)
    return percentile_interval(round(value, 12), means_R, sum(map(len, totals.values())), level)


def _totals(cells: list[tuple[str, Array]]) -> dict[str, Array]:
    """Return the sum over the cells of each task: they share resampled indices, so it may be resampled instead."""
    totals: dict[str, Array] = {}
    for task, values_N in cells:
        if task in totals and totals[task].shape != values_N.shape:
            raise ValueError(
                f"interval: task {task!r}: its cells must hold the same samples, "
                f"got {len(totals[task])} and {len(values_N)}"
            )
        totals[task] = totals[task] + values_N if task in totals else values_N
    return totals


def _resampled_means(total_N: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Return the (R,) means of resamples of N with replacement.

    Only the count of each distinct value matters, and it is multinomial. Accuracies have few distinct values, so a task
    costs R * V draws instead of R * N: 64 tasks of 1,500 samples take 0.03 s, and 3.6 s with resampled indices.
    """
    values_V, counts_V = np.unique(total_N, return_counts=True)
    draws_RV = rng.multinomial(len(total_N), counts_V / len(total_N), size=resamples)
    means: Array = draws_RV @ values_V / len(total_N)
    return means


def _vector(task: str, values: npt.ArrayLike) -> Array:
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1 or not len(values_N) or not np.isfinite(values_N).all():
        raise ValueError(f"interval: task {task!r}: outcomes must be finite and of shape (N,), got {values_N.shape}")
    return values_N
