"""Models ranked by their mean on the same samples, with simultaneous intervals of how far each is behind the best.

Shape legend: A models, N samples of a task, R draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.intervals import Array, Interval, TaskOutcomes

#: Draws of the largest difference: its 95% quantile then has a standard error of about 1%.
DRAWS = 4000
#: Variances of differences below this share of a model's own, and differences of means below _EQUAL, are rounding.
_NOTHING, _EQUAL = 1e-12, 1e-12


@dataclass(frozen=True, slots=True)
class Rank:
    """One model.

    Attributes:
        place: of the model in the order it was given.
        behind: the best model's mean minus its own, with a simultaneous 95% interval; a tie if 0 is in it.
    """

    place: int
    behind: Interval

    @property
    def ties(self) -> bool:
        """Whether it is not shown to be worse than the best."""
        return self.behind.verdict == "tie"


def ranked(models: Sequence[Sequence[TaskOutcomes]]) -> list[Rank]:
    """Rank models by the mean over tasks of their mean outcomes, the best first.

    The intervals of all pairs hold together with 95%: each difference takes the same multiple of its standard error,
    the 95% quantile of the largest studentised difference over all pairs of normal variables with the means'
    covariance (Tukey's studentised range; Chernozhukov et al. 2013 for means that are not normal). So they also hold
    for the best, which is picked by the same data, and with a probability of 95% the truly best model is among those
    that tie with it (Hsu 1984).

    A standard error is an estimate, and the largest of many ratios has one that is too small. So an interval holds the
    differences that a score test does not reject: those d with |d' - d| <= m s(d), where s(d) is the standard error if
    d were true, s(d)^2 = s^2 + (d' - d)^2 / f, with f Satterthwaite's degrees of freedom. The tails of such a
    self-normalised mean are no wider than the normal's for symmetric outcomes, at any number of samples (Efron 1969).
    Of models that differ by a constant, f is the number of samples without one a task; with too few the interval is
    endless.

    Args:
        models: the outcomes of each model on the same tasks and samples; a larger outcome is the better one.

    Raises:
        ValueError: if there is no model, or two differ in their tasks or samples.

    Example:
        >>> right, wrong = TaskOutcomes("mnist", [1.0] * 50), TaskOutcomes("mnist", [0.0, 1.0] * 25)
        >>> [(rank.place, rank.behind.value, rank.ties) for rank in ranked([[wrong], [right], [right]])]
        [(1, 0.0, True), (2, 0.0, True), (0, 0.5, False)]
    """
    tasks = _outcomes(models)
    means_A = sum((outcomes_AN.mean(axis=1) for outcomes_AN in tasks), np.zeros(len(models))) / len(tasks)
    apart_AA = np.abs(means_A[:, None] - means_A) > _EQUAL
    variances_AA, freedom_AA = _pairs(tasks)
    constant = bool((apart_AA & (variances_AA == 0)).any())
    square = float(np.quantile(_largest(tasks, variances_AA, constant), 0.95)) ** 2
    room_AA = np.maximum(freedom_AA - square, 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # too few samples: the interval is endless
        wide_AA = np.where(room_AA > 0, np.sqrt(square * variances_AA * freedom_AA / room_AA), np.inf)
    widths_AA = np.where(apart_AA | (variances_AA > 0), wide_AA, 0.0)
    order = sorted(range(len(models)), key=lambda a: (-means_A[a], a))
    best, samples = order[0], sum(outcomes_AN.shape[1] for outcomes_AN in tasks)
    found = []
    for place in order:
        behind, width = means_A[best] - means_A[place], widths_AA[best, place]
        low, high = np.round([behind - width, behind + width], 12)
        found.append(Rank(place, Interval(float(behind.round(12)), float(low), float(high), samples)))
    return found


def _outcomes(models: Sequence[Sequence[TaskOutcomes]]) -> list[Array]:
    """Return the outcomes of all models on each task, (A, N)."""
    if not models:
        raise ValueError("ranking: needs at least one model, got none")
    names = [[cell.task for cell in cells] for cells in models]
    if any(other != names[0] for other in names):
        raise ValueError(f"ranking: all models must have the tasks {names[0]}, got {names}")
    return [np.stack([np.asarray(cell.a, np.float64) for cell in cells]) for cells in zip(*models, strict=True)]


def _pairs(tasks: Sequence[Array]) -> tuple[Array, Array]:
    """Return the variance of the mean difference of each pair, and its degrees of freedom, (A, A) each."""
    size = len(tasks[0])
    variances_AA, squares_AA, own_A = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size)
    for outcomes_AN in tasks:
        count = outcomes_AN.shape[1]
        shifted_AN = outcomes_AN - outcomes_AN[:, :1]  # the differences of constants are exactly 0
        spread_AA = np.stack([(shifted_AN - shifted_N).var(axis=1) for shifted_N in shifted_AN])
        share = 1 / max(1, count - 1) / len(tasks) ** 2
        variances_AA += spread_AA * share
        squares_AA += (spread_AA * share) ** 2 / max(1, count - 1)
        own_A += shifted_AN.var(axis=1) * share
    variances_AA[variances_AA < _NOTHING * own_A.max()] = 0  # equal models stay equal
    most = np.full_like(squares_AA, sum(outcomes_AN.shape[1] - 1 for outcomes_AN in tasks))
    return variances_AA, np.divide(variances_AA**2, squares_AA, out=most, where=variances_AA > 0)


def _largest(tasks: Sequence[Array], variances_AA: Array, constant: bool) -> Array:
    """Draw the largest studentised difference of any pair, (R,), of normal means; 0 if all models are equal.

    Pairs without a variance have no covariance with others: if some differ by a `constant`, they count as one more.
    """
    rng, size = np.random.default_rng(0), len(tasks[0])
    covariance_AA = np.zeros((size, size))
    for outcomes_AN in tasks:
        covariance_AA += np.cov(outcomes_AN, bias=True) / max(1, outcomes_AN.shape[1] - 1) / len(tasks) ** 2
    draws_RA = rng.multivariate_normal(np.zeros(size), covariance_AA, DRAWS, method="eigh")
    largest_R = np.abs(rng.standard_normal(DRAWS)) if constant else np.zeros(DRAWS)
    for a, variances_A in enumerate(variances_AA):
        differ = variances_A > 0
        differ[: a + 1] = False
        if differ.any():
            distances_RB = np.abs(draws_RA[:, differ] - draws_RA[:, [a]]) / np.sqrt(variances_A[differ])
            largest_R = np.maximum(largest_R, distances_RB.max(axis=1))
    return largest_R
