"""Whether a few random samples show that one candidate is worse than another: a paired, stratified test.

Shape legend: k of the n samples of a task.
"""

from collections.abc import Mapping
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


def is_worse(
    differences: Mapping[str, npt.NDArray[np.float64]],
    slopes: Mapping[str, float],
    sizes: Mapping[str, int],
    error: float,
) -> bool:
    """Whether the first of two candidates has the smaller objective, except with a small chance.

    The objective's difference is estimated by a straight line: each task's mean difference times the slope. Its
    standard error adds the tasks' variances, which shrink as the seen samples become all of a task. The normal
    distribution is an approximation, poor for a handful of samples; a variance of at least 1 / (4 (k + 2)) keeps a task
    whose few differences are all equal from looking certain.

    Args:
        differences: task -> outcome of the first minus that of the second on random samples (k,).
        slopes: task -> change of the objective with its accuracy.
        sizes: task -> n.
        error: chance of saying so of a candidate that is as good.

    Example:
        >>> behind = {"cats": np.array([-1.0, 0, -1, -1, 0, -1, -1, -1])}
        >>> is_worse(behind, {"cats": 1.0}, {"cats": 100}, 0.01), is_worse(behind, {"cats": 1.0}, {"cats": 100}, 1e-9)
        (True, False)
    """
    mean = sum(slopes[t] * d_k.mean() for t, d_k in differences.items())
    variance = sum(slopes[t] ** 2 * _variance(d_k, sizes[t]) for t, d_k in differences.items())
    return bool(mean < NormalDist().inv_cdf(error) * sqrt(variance))


def _variance(difference_k: npt.NDArray[np.float64], size: int) -> float:
    """Return the variance of a mean of k of n samples."""
    k = len(difference_k)
    own = float(difference_k.var(ddof=1)) if k > 1 else 0.0
    return max(own, 0.25 / (k + 2)) / k * (1 - k / size)
