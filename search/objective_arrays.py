"""Objectives of many candidates in many resamples at once: `role_metrics` and `Objective` over arrays."""

from collections.abc import Callable, Collection, Mapping
from functools import reduce

import numpy as np

from search.intervals import Array
from search.objectives import Objective, Role, Step, task_metric

#: Operations of numbers that differ for arrays.
_OF_TWO: Mapping[Callable[..., float], Callable[[Array, Array], Array]] = {min: np.minimum, max: np.maximum}


def role_metric_arrays(
    values: Mapping[str, Array],
    roles: Mapping[str, Role],
    references: Mapping[str, float],
    lower: Collection[str] = (),
) -> dict[str, Array]:
    """Return the metrics of `role_metrics`, of arrays of one shape.

    Args:
        values: task -> values, at least one of them of a target.
        roles: task -> role, for the same tasks.
        references: task -> of the fine-tuned model for a target, of the pre-trained model for a control.
        lower: the control tasks whose smaller values are better.
    """
    targets = [t for t, role in roles.items() if role == "target"]
    controls = [t for t, role in roles.items() if role == "control"]
    shares = {t: references[t] / values[t] if t in lower else values[t] / references[t] for t in (*targets, *controls)}
    ones = np.ones_like(values[targets[0]])
    counted = [shares[t] if t in lower else values[t] for t in controls]
    against = [1.0 if t in lower else references[t] for t in controls]
    normalised = list(shares.values())
    metrics = {
        "target": _mean([shares[t] for t in targets]),
        "control": _mean([shares[t] for t in controls]) if controls else ones,
        "retained": _mean(counted) / np.mean(against) if controls else ones,
        "mean": _mean(normalised),
        "worst": reduce(np.minimum, normalised),
        "accuracy": _mean([values[t] for t in targets]),
    }
    return metrics | {task_metric(t): value for t, value in values.items()}


def objective_array(objective: Objective, metrics: Mapping[str, Array]) -> Array:
    """Return an objective's values, NaN or infinite where it divides by 0."""
    stack: list[Array] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for step in objective.steps:
            operands = _operands(step, stack)
            stack.append(_value(step, operands, metrics))
    return stack[0]


def _operands(step: Step, stack: list[Array]) -> list[Array]:
    """Take the operands of an operation from the stack."""
    if not isinstance(step, tuple):
        return []
    operands = stack[-step[1] :]
    del stack[-step[1] :]
    return operands


def _value(step: Step, operands: list[Array], metrics: Mapping[str, Array]) -> Array:
    if isinstance(step, str):
        return metrics[step]
    if isinstance(step, tuple):
        of_two = _OF_TWO.get(step[0])
        return np.asarray(reduce(of_two, operands) if of_two else step[0](*operands))
    return np.asarray(step)


def _mean(parts: list[Array]) -> Array:
    mean: Array = sum(parts[1:], parts[0]) / len(parts)
    return mean
