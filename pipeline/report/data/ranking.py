"""Models ranked by their mean on the same samples, with simultaneous intervals of how far each is behind the best.

Shape legend: A models, R resamples, S = 1 + R with the measurement first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.report.data.resamples import resampled_means
from search.intervals import Array, Interval, TaskOutcomes

#: Resamples behind a ranking: quantiles of a maximum over pairs need as many as intervals do.
RESAMPLES = 2000


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

    The intervals of all pairs hold together with 95%: each difference takes the same multiple of its own bootstrap
    standard error, the 95% quantile of the largest studentised difference over all pairs (Tukey's studentised range,
    by bootstrap: Westfall and Young 1993, section 2). So they also hold for the best, which is picked by the same data,
    and with a probability of 95% the truly best model is among those that tie with it (Hsu 1984).

    Args:
        models: the outcomes of each model on the same tasks and samples; a larger outcome is the better one.

    Raises:
        ValueError: if there is no model, or two differ in their tasks or samples.

    Example:
        >>> right, wrong = TaskOutcomes("mnist", [1.0] * 50), TaskOutcomes("mnist", [0.0, 1.0] * 25)
        >>> [(rank.place, rank.behind.value, rank.ties) for rank in ranked([[wrong], [right], [right]])]
        [(1, 0.0, True), (2, 0.0, True), (0, 0.5, False)]
    """
    means_SA = _means(models)
    means_A, errors_RA = means_SA[0], means_SA[1:] - means_SA[0]
    deviations_AA = np.stack([(errors_RA - errors_RA[:, [a]]).std(axis=0) for a in range(len(models))])
    multiple = np.quantile(_largest(errors_RA, deviations_AA), 0.95)
    order = sorted(range(len(models)), key=lambda a: (-means_A[a], a))
    best, samples = order[0], sum(len(np.asarray(cell.a)) for cell in models[0])
    found = []
    for place in order:
        behind, width = means_A[best] - means_A[place], multiple * deviations_AA[best, place]
        low, high = np.round([behind - width, behind + width], 12)
        found.append(Rank(place, Interval(float(behind.round(12)), float(low), float(high), samples)))
    return found


def _means(models: Sequence[Sequence[TaskOutcomes]]) -> Array:
    """Return the means over tasks in the sample itself and in every resample, which all models share: (S, A)."""
    if not models:
        raise ValueError("ranking: needs at least one model, got none")
    tasks = [[cell.task for cell in cells] for cells in models]
    if any(names != tasks[0] for names in tasks):
        raise ValueError(f"ranking: all models must have the tasks {tasks[0]}, got {tasks}")
    total = np.zeros((1 + RESAMPLES, len(models)))
    for seed, cells in enumerate(zip(*models, strict=True)):
        outcomes_AN = np.stack([np.asarray(cell.a, np.float64) for cell in cells])
        total += resampled_means(outcomes_AN, RESAMPLES, seed) / len(tasks[0])
    return total


def _largest(errors_RA: Array, deviations_AA: Array) -> Array:
    """Return the largest studentised difference of any pair in each resample, (R,); 0 if all models are equal."""
    largest_R = np.zeros(len(errors_RA))
    for a, deviations_A in enumerate(deviations_AA):
        differ = deviations_A > 1e-12
        if differ.any():
            distances_RB = np.abs(errors_RA[:, differ] - errors_RA[:, [a]]) / deviations_A[differ]
            largest_R = np.maximum(largest_R, distances_RB.max(axis=1))
    return largest_R
