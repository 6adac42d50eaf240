"""Hypervolumes of the arms' fronts in every resample.

Shape legend: P points of an arm, M objectives, S = 1 + R with the measurement first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.report.data.resamples import resampled_interval
from search.intervals import Interval
from search.pareto import Array, hypervolume


@dataclass(frozen=True)
class Volumes:
    """Hypervolumes of arms that are compared.

    Attributes:
        by_arm: arm -> (S,) hypervolumes.
        samples: number of distinct samples behind them.
    """

    by_arm: Mapping[str, Array]
    samples: int

    @classmethod
    def above(cls, points: Mapping[str, Array], corner_SM: Array, samples: int) -> "Volumes":
        """Return the volumes that each arm's points (S, P, M) dominate above the corner of each resample."""
        found = {
            arm: np.array([_volume(xy_PM, corner_M) for xy_PM, corner_M in zip(xy_SPM, corner_SM, strict=True)])
            for arm, xy_SPM in points.items()
        }
        return cls(found, samples)

    def mean(self, arm: str) -> Interval:
        """Return the hypervolume of one arm."""
        return resampled_interval(self.by_arm[arm], self.samples)

    def difference(self, arm: str, other: str) -> Interval:
        """Return the hypervolume of one arm minus that of another, paired by resample."""
        return resampled_interval((self.by_arm[arm] - self.by_arm[other]).round(9), self.samples)


def _volume(points_PM: Array, corner_M: Array) -> float:
    """A point with an objective that is not finite dominates nothing. Rounded, so that equal fronts differ by 0."""
    return round(hypervolume(points_PM[np.isfinite(points_PM).all(axis=1)], corner_M), 9)
