"""Sums that processes exchange in place of ratios, since sums of parts add up."""

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """Count, sum and sum of squares of per-sample outcomes; addition merges two parts of a data set.

    Division happens once, at the end, so that any split into shards gives the same value.

    Example:
        >>> whole = Stats(n=3, total=2.0, squares=2.0) + Stats(n=1, total=1.0, squares=1.0)
        >>> whole.n, whole.mean, whole.std_err
        (4, 0.75, 0.25)
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Stats") -> "Stats":
        """Merge the sums of two disjoint sets of samples."""
        return Stats(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean outcome; for accuracy, a fraction in [0, 1].

        Raises:
            ValueError: if there are no samples.
        """
        if self.n == 0:
            raise ValueError("Stats.mean: no samples were scored, so there is no mean")
        return self.total / self.n

    @property
    def std(self) -> float:
        """Standard deviation of the outcomes (sample variance, n - 1; 0 for a single sample)."""
        if self.n < 2:
            return 0.0
        return math.sqrt(max(0.0, self.squares - self.total * self.mean) / (self.n - 1))

    @property
    def std_err(self) -> float:
        """Standard error of the mean."""
        return self.std / math.sqrt(self.n) if self.n else 0.0


def shards(num_samples: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut `num_samples` into (start, stop) ranges of `size`; the last may be shorter.

    Raises:
        ValueError: if `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"shard size: must be at least 1, got {size}")
    for start in range(0, num_samples, size):
        yield start, min(start + size, num_samples)
