"""The metrics of lm-eval that can be a score: a value in [0, 1] for each document, whose mean is reported."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from lm_eval.api.metrics import mean

from tasks.language.lm_eval.options import Options
from tasks.language.lm_eval.rolling import is_rolling, rolling_metric
from tasks.registry import near

#: Metrics of lm-eval that are 0 or 1 for each document, unless a task computes them by a function of its own.
_BINARY = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"}


def choose_metric(task: Any, options: Options) -> tuple[str, str]:
    """Return the metric and the filter of answers that the spec names, or the task's first ones.

    Raises:
        ValueError: if the task lacks it, or it is no mean of values where higher is better.
    """
    metric = rolling_metric(task, options) if is_rolling(task) else _metric(task, options)
    return metric, _filter(task, options)


def _metric(task: Any, options: Options) -> str:
    aggregations, better = task.aggregation(), task.higher_is_better()
    means: list[str] = [name for name, how in aggregations.items() if how is mean and better.get(name, True)]
    chosen, where = options.metric, f"{options.where}.metric"
    if chosen is None:
        if not means:
            rule = "none is a mean over documents where higher is better, so it cannot be scored"
            raise ValueError(f"its metrics are {', '.join(aggregations)}: {rule}")
        return means[0]
    if chosen not in aggregations:
        raise ValueError(f"{where}: the task has no metric {chosen!r}; {near(chosen, aggregations)}")
    if chosen not in means:
        raise ValueError(
            f"{where}: must be a mean over documents where higher is better, got {chosen!r}; {near(chosen, means)}"
        )
    return chosen


def _filter(task: Any, options: Options) -> str:
    names = [ensemble.name for ensemble in task._filters]
    if options.filter is not None and options.filter not in names:
        where = f"{options.where}.filter"
        raise ValueError(f"{where}: the task has no filter {options.filter!r}; {near(options.filter, names)}")
    return options.filter or names[0]


def outcomes_of(task: Any, metric: str, values: Sequence[Any]) -> npt.NDArray[np.bool_] | npt.NDArray[np.float32]:
    """Return the values of documents as outcomes: bool for metrics that are 0 or 1, else float32.

    Raises:
        ValueError: if a value is not in [0, 1].
    """
    for value in values:
        if not isinstance(value, int | float | np.number | np.bool_) or not 0 <= value <= 1:
            raise ValueError(f"metric {metric}: must be in [0, 1] for each document, got {value!r}: use another metric")
    binary = metric in _BINARY and task.config.process_results is None and set(values) <= {0, 1}
    return np.array(values, np.bool_) if binary else np.array(values, np.float32)
