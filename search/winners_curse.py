"""The best of many candidates looks better than it is: its value corrected, and its drop to other samples predicted.

Shape legend: A models, N samples of a task, R resamples, K candidates.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.intervals import Array, Interval, percentile_interval

#: More do not move a predicted drop by a twentieth of the standard error of a mean.
RESAMPLES = 500
#: Weights of samples in memory at once: 16 MB.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class BagMeans:
    """Means of models over resamples of one task, shared by all models, and over what each resample leaves out.

    Attributes:
        n: number of samples.
        mean_A: over all samples.
        bag_RA: over N draws with replacement.
        left_out_RA: over the samples that were not drawn, about 37%; NaN if all were.
    """

    n: int
    mean_A: Array
    bag_RA: Array
    left_out_RA: Array

    @classmethod
    def of(cls, outcomes_AN: npt.NDArray[Any], seed: int, resamples: int = RESAMPLES) -> "BagMeans":
        """Draw the resamples.

        Args:
            outcomes_AN: outcomes of every model on the same samples.
            seed: of the random generator.
            resamples: R.
        """
        rng, count = np.random.default_rng(seed), outcomes_AN.shape[1]
        values_NA, even_N = outcomes_AN.T.astype(np.float64), np.full(count, 1 / count)
        bag, left_out = [], []
        for first in range(0, resamples, step := max(1, _BLOCK // count)):
            weights_RN = rng.multinomial(count, even_N, min(step, resamples - first))
            unused_RN = (weights_RN == 0).astype(np.float64)
            sizes_R = unused_RN.sum(axis=1)
            bag.append(weights_RN @ values_NA / count)
            left_out.append(unused_RN @ values_NA / np.where(sizes_R, sizes_R, np.nan)[:, None])
        return cls(count, values_NA.mean(axis=0), np.concatenate(bag), np.concatenate(left_out))

    def elsewhere(self, count: int) -> Array:
        """Return (R, A): the means if other `count` samples were drawn, independently of `bag_RA` in the same row."""
        spread_RA: Array = (np.roll(self.bag_RA, 1, axis=0) - self.mean_A) * math.sqrt(self.n / count)
        return self.mean_A + spread_RA


@dataclass(frozen=True)
class Choice:
    """A candidate that was chosen by the largest value, in every resample.

    Attributes:
        value: on validation.
        change_R: in each resample, the value of what the resample would choose minus that of the choice, both on the
            samples that the resample leaves out.
        bag_R: the value of the choice in each resample.
        elsewhere_R: its value on a test set of the test set's size.
    """

    value: float
    change_R: Array
    bag_R: Array
    elsewhere_R: Array

    @classmethod
    def of(cls, value_K: Array, bag_RK: Array, left_out_RK: Array, elsewhere_RK: Array) -> "Choice":
        """Choose the largest value, the first of equals, from all samples and in every resample."""
        chosen = int(value_K.argmax())
        again_R = np.where(np.isnan(bag_RK), -np.inf, bag_RK).argmax(axis=1)
        change_R = np.take_along_axis(left_out_RK, again_R[:, None], axis=1)[:, 0] - left_out_RK[:, chosen]
        return cls(float(value_K[chosen]), change_R, bag_RK[:, chosen], elsewhere_RK[:, chosen])


@dataclass(frozen=True)
class Prediction:
    """What the value of a choice is worth.

    Attributes:
        value: on validation.
        corrected: the value that the choice has on the whole population, with its 95% interval.
        drop: from validation to a test set: corrected minus value, with the 95% interval of what will be measured.
    """

    value: float
    corrected: Interval
    drop: Interval


def predict(choices: list[Choice], samples: int) -> Prediction:
    """Return the corrected mean value of choices from the same resamples, such as of one arm's experts.

    In every resample the choice is made again, and evaluated on the samples that the resample leaves out: bootstrap
    bias-corrected cross-validation (Tsamardinos, Greasidou and Borboudakis, 2018). The mean of these values is the
    corrected one. Less noisy, and zero without a choice, is the mean of their differences to the choice on the same
    samples, whose own mean over resamples is its value. The interval is that of the choice over the resamples, moved by
    the correction; that of the drop adds the spread of a test set. docs/internals/benchmarks.md has bias and coverage
    by simulation.

    Args:
        choices: one or more, each from the same R resamples.
        samples: number of validation samples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> means = BagMeans.of(rng.random((50, 200)) < 0.7, seed=0)  # 50 candidates, equally good
        >>> found = predict([Choice.of(means.mean_A, means.bag_RA, means.left_out_RA, means.elsewhere(400))], 200)
        >>> round(found.value, 3), round(found.corrected.value, 3), round(found.drop.value, 3)
        (0.775, 0.712, -0.063)
    """
    value = float(np.mean([choice.value for choice in choices]))
    change_R = np.mean([choice.change_R for choice in choices], axis=0)
    bag_R = np.mean([choice.bag_R for choice in choices], axis=0)
    elsewhere_R = np.mean([choice.elsewhere_R for choice in choices], axis=0)
    corrected = value + float(np.mean(change_R[np.isfinite(change_R)]))
    known_R = np.isfinite(bag_R) & np.isfinite(elsewhere_R)
    moved_R = bag_R[known_R] + (corrected - value)
    dropped_R = moved_R + elsewhere_R[known_R] - 2 * value
    return Prediction(
        value,
        percentile_interval(corrected, moved_R, samples),
        percentile_interval(corrected - value, dropped_R, samples),
    )
