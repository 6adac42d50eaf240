"""The self-test of `lines regress`: how often the gate raises a false alarm, and how often it finds planted drops.

Shape legend: N samples of a task, R resamples, C comparisons, D drops with "none" first.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from pipeline.regress.compare import common_cells, limits
from pipeline.regress.pairs import Allowed
from pipeline.regress.snapshot import Snapshot, SnapshotKey
from pipeline.spec.thresholds import Regress
from search.intervals import Array
from search.row_tests import mcnemar_rows, sign_flip_rows
from search.significance import is_binary
from tasks.metrics import lower_is_better

#: Resamples of a self-test: a rate of 2.5% has an interval of 1.9 to 3.3%.
RESAMPLES = 2000
#: Planted drops of an accuracy, and of any other metric as parts of its standard deviation over samples.
POINTS = (0.005, 0.01, 0.02, 0.05)
DEVIATIONS = (0.05, 0.1, 0.2, 0.5)
#: Decimals of means, as in `pipeline.regress.compare`.
_DIGITS = 12
#: Most outcomes of one block of resamples: 4 MB.
_BLOCK = 500_000
_Flags = npt.NDArray[np.bool_]
#: Called with what is being done, steps done, steps in all.
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Rate:
    """A share of the resamples, with its 95% interval (Clopper and Pearson)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits_R: npt.ArrayLike) -> "Rate":
        """Return the share of hits, each 0 or 1."""
        hits = np.asarray(hits_R)
        count, of = int(hits.sum()), len(hits)
        low = betaincinv(count, of - count + 1, 0.025) if count else 0.0
        high = betaincinv(count + 1, of - count, 0.975) if count < of else 1.0
        return cls(count / of, float(low), float(high))


@dataclass(frozen=True)
class TestedComparison:
    """One arm on one task.

    Attributes:
        arm, role, task, metric: as in `BaselineComparison`.
        n: number of samples.
        tolerance: how far the mean may be worse.
        alarms: how often it regressed although nothing changed.
        drops: the planted drops, in the metric's unit; None for one that is larger than the mean.
        found: how often it regressed with each, if all other comparisons did not change.
    """

    arm: str
    role: str
    task: str
    metric: str
    n: int
    tolerance: float
    alarms: Rate
    drops: Sequence[float | None]
    found: Sequence[Rate | None]


@dataclass(frozen=True)
class SelfTest:
    """How often a comparison of identical weights raises an alarm, and how often it finds a planted drop.

    Attributes:
        run, baseline: the snapshots; the baseline is None if the run was compared with itself.
        level: of a call.
        resamples: number of simulated calls.
        alarms: how often any comparison regressed although nothing changed.
        comparisons: in the order of the run's tables.
        left_out: the parts that could not be compared, in words.
    """

    run: Snapshot
    baseline: Snapshot | None
    level: float
    resamples: int
    alarms: Rate
    comparisons: Sequence[TestedComparison]
    left_out: Sequence[str]


@dataclass(frozen=True)
class _Cell:
    """One comparison: its outcomes and thresholds; `sizes_D` is how much each drop takes from the mean."""

    key: SnapshotKey
    metric: str
    now_N: Array
    before_N: Array
    tolerance: float
    bound: float | None
    sizes_D: Sequence[float] = field(default=())

    @property
    def sign(self) -> float:
        return -1.0 if lower_is_better(self.metric) else 1.0


@dataclass(frozen=True)
class _Draws:
    """A block of simulated calls on one task: the samples of both sides, (R, N) each.

    Attributes:
        now_RN, before_RN: places of the samples.
        swap_RN: whether the two sides are exchanged; None if each draws samples of its own.
        lost_RN: numbers in [0, 1): a planted drop takes the samples below a threshold.
    """

    now_RN: npt.NDArray[np.int64]
    before_RN: npt.NDArray[np.int64]
    swap_RN: _Flags | None
    lost_RN: npt.NDArray[np.float32]


def self_test(
    run: Snapshot,
    baseline: Snapshot | None,
    regress: Regress,
    allowed: Allowed,
    resamples: int,
    watch: Watch = lambda what, done, total: None,
) -> SelfTest:
    """Run the gate on resamples in which nothing changed, then with one drop in one comparison at a time.

    With a baseline, the samples of a task are drawn with replacement, for all arms together, and each drawn sample is
    exchanged between run and baseline with chance 1/2: both sides then have the same expected mean, and differ on as
    many samples as the two runs do. Without one, run and baseline are the same weights on two test sets drawn
    independently from the run's samples: the least favourable case, in which pairing removes no variance.

    A drop of an accuracy is planted by losing each sample with a chance of drop / mean, for all experts of a mean at
    once; of another metric by moving all samples. Sign-flip tests are computed by `sign_flip_rows`.

    Example:
        >>> tested = self_test(read_place("runs/tonight"), read_place("baseline.parquet"), Regress(), Allowed(), 2000)
        >>> tested.alarms
        Rate(value=0.0055, low=0.002748940318869128, high=0.009819847424104888)

    Args:
        run: the snapshot of a finished run.
        baseline: of another run, or None.
        regress: tolerances, minima and level.
        allowed: the differences that are allowed.
        resamples: number of simulated calls, R.
        watch: called as the work goes on.

    Raises:
        ValueError: as `compare`.
    """
    run, other, keys, left_out = common_cells(run, baseline or run, regress, allowed)
    cells = [_cell(run, other, key, regress) for key in keys]
    p_RCD, beyond_RCD, least_RCD = _simulated(cells, baseline is not None, resamples, watch)
    level_RC = _holm_levels(p_RCD[:, :, 0], regress.level)
    regressed_RCD = least_RCD | (beyond_RCD & (p_RCD <= level_RC[:, :, None]))
    found = [_tested(cell, regressed_RCD[:, place]) for place, cell in enumerate(cells)]
    alarms = Rate.of(regressed_RCD[:, :, 0].any(axis=1))
    return SelfTest(run, baseline and other, regress.level, resamples, alarms, found, left_out)


def _cell(run: Snapshot, baseline: Snapshot, key: SnapshotKey, regress: Regress) -> _Cell:
    metric, now_N, before_N = run.metric(key), run.mean_N(key), baseline.mean_N(key)
    deviation = float(np.concatenate([now_N, before_N]).std())
    sizes = POINTS if metric == "accuracy" else tuple(part * deviation for part in DEVIATIONS)
    return _Cell(key, metric, now_N, before_N, *limits(regress, key, metric), (0.0, *sizes))


def _tested(cell: _Cell, regressed_RD: _Flags) -> TestedComparison:
    arm, role, task = cell.key
    possible = [_chance(cell, size) <= 1 for size in cell.sizes_D]
    rates = [Rate.of(hits_R) for hits_R in regressed_RD.T]
    drops = [size if fits else None for size, fits in zip(cell.sizes_D, possible, strict=True)]
    found = [rate if fits else None for rate, fits in zip(rates, possible, strict=True)]
    about = (arm, role, task, cell.metric, len(cell.now_N), cell.tolerance)
    return TestedComparison(*about, rates[0], drops[1:], found[1:])


def _simulated(cells: Sequence[_Cell], paired: bool, resamples: int, watch: Watch) -> tuple[Array, _Flags, _Flags]:
    """Return (R, C, D): p-values, whether the mean fell by more than the tolerance, and whether it is out of bounds."""
    shape = (resamples, len(cells), len(cells[0].sizes_D))
    p_RCD, beyond_RCD, least_RCD = np.ones(shape), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    tasks, done = list(dict.fromkeys(cell.key[2] for cell in cells)), 0
    for task in tasks:
        here = [place for place, cell in enumerate(cells) if cell.key[2] == task]
        for rows, draws in _draws(task, len(cells[here[0]].now_N), paired, resamples):
            for place in here:
                found = _gate(cells[place], draws)
                p_RCD[rows, place], beyond_RCD[rows, place], least_RCD[rows, place] = found
                done += rows.stop - rows.start
                watch("simulating calls without a change, and with planted drops", done, resamples * len(cells))
    return p_RCD, beyond_RCD, least_RCD


def _draws(task: str, count: int, paired: bool, resamples: int) -> Iterator[tuple[slice, _Draws]]:
    """Yield blocks of simulated calls; all arms share them, as they share the samples."""
    rng = np.random.default_rng(zlib.crc32(task.encode()))
    step = max(1, _BLOCK // count)
    for first in range(0, resamples, step):
        rows = slice(first, min(first + step, resamples))
        shape = (rows.stop - rows.start, count)
        now_RN, lost_RN = rng.integers(0, count, shape), rng.random(shape, np.float32)
        before_RN = now_RN if paired else rng.integers(0, count, shape)
        yield rows, _Draws(now_RN, before_RN, rng.random(shape, np.float32) < 0.5 if paired else None, lost_RN)


def _gate(cell: _Cell, draws: _Draws) -> tuple[Array, _Flags, _Flags]:
    """Return (R, D) of one comparison: p-values, falls beyond the tolerance, means out of bounds."""
    now_RN, before_RN = cell.now_N[draws.now_RN], cell.before_N[draws.before_RN]
    if draws.swap_RN is not None:
        now_RN, before_RN = (
            np.where(draws.swap_RN, before_RN, now_RN),
            np.where(draws.swap_RN, now_RN, before_RN),
        )
    binary = is_binary(cell.now_N) and is_binary(cell.before_N)
    p, beyond, least = [], [], []
    for size in cell.sizes_D:
        planted_RN = _planted(cell, now_RN, draws, size)
        difference_RN = planted_RN - before_RN
        gain_R = np.round(cell.sign * difference_RN.mean(axis=1), _DIGITS)
        p.append(_mcnemar(difference_RN) if binary else sign_flip_rows(difference_RN))
        beyond.append(gain_R < -cell.tolerance)
        mean_R = np.round(cell.sign * planted_RN.mean(axis=1), _DIGITS)
        least.append(np.zeros(len(mean_R), np.bool_) if cell.bound is None else mean_R < cell.sign * cell.bound)
    return np.stack(p, axis=1), np.stack(beyond, axis=1), np.stack(least, axis=1)


def _planted(cell: _Cell, now_RN: Array, draws: _Draws, size: float) -> Array:
    if not size:
        return now_RN
    if cell.metric == "accuracy":
        return now_RN * (draws.lost_RN >= _chance(cell, size))
    return now_RN - cell.sign * size


def _chance(cell: _Cell, size: float) -> float:
    """The chance of losing a sample, for an accuracy to fall by `size`; above 1 if it cannot, 0 for other metrics."""
    if cell.metric != "accuracy" or not size:
        return 0.0
    mean = (cell.now_N.mean() + cell.before_N.mean()) / 2
    return float(size / mean) if mean else np.inf


def _mcnemar(difference_RN: Array) -> Array:
    return mcnemar_rows((difference_RN > 0).sum(axis=1), (difference_RN < 0).sum(axis=1))


def _holm_levels(p_RC: Array, level: float) -> Array:
    """Return (R, C): the level at which Holm's procedure rejects a comparison, given the p-values of all others.

    If J is the number of others that it would reject were they first, each of them is at most level / (C - J), and a
    comparison is rejected if and only if its own p-value is too.
    """
    count = p_RC.shape[1]
    steps_C = level / np.arange(count, 1, -1)
    rejected_RC = np.empty(p_RC.shape, np.int64)
    for place in range(count):
        others_RC = np.sort(np.delete(p_RC, place, axis=1), axis=1)
        rejected_RC[:, place] = np.logical_and.accumulate(others_RC <= steps_C, axis=1).sum(axis=1)
    level_RC: Array = level / (count - rejected_RC)
    return level_RC
