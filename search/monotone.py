"""Whether an objective can only grow when the accuracies in it grow."""

import operator
from dataclasses import dataclass

from search.objectives import Objective


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an expression: its value if it is a constant, and whether it is surely 0 or more."""

    constant: float | None
    positive: bool


def decreasing_part(objective: Objective) -> str:
    """Say what may make an objective smaller when an accuracy grows; "" if nothing does.

    Metrics are taken to be 0 or more, and to grow with every accuracy. The check errs on the side of a reason:
    `target / 2 - control * 0` has one. Every step of an accepted expression is monotone in floating point too, since
    it is rounded correctly.

    Example:
        >>> decreasing_part(Objective.parse("min(2 * target, control) + 0.1"))
        ''
        >>> decreasing_part(Objective.parse("target - control"))
        'it subtracts a metric'
    """
    stack: list[_Part] = []
    for step in objective.steps:
        if not isinstance(step, tuple):
            stack.append(_Part(None, True) if isinstance(step, str) else _Part(step, step >= 0))
            continue
        operation, count = step
        parts = stack[-count:]
        del stack[-count:]
        if all(part.constant is not None for part in parts):
            value = _value(operation, parts)
            if value is None:
                return "it divides by 0"
            stack.append(_Part(value, value >= 0))
        elif reason := _reason(operation, parts):
            return reason
        else:
            stack.append(_Part(None, _is_positive(operation, parts)))
    return ""


def _value(operation: object, parts: list[_Part]) -> float | None:
    assert callable(operation)
    try:
        return float(operation(*(part.constant for part in parts)))
    except ZeroDivisionError:
        return None


def _reason(operation: object, parts: list[_Part]) -> str:
    """Say how a step with at least one metric below it can decrease."""
    if operation is operator.neg or (operation is operator.sub and parts[1].constant is None):
        return "it subtracts a metric"
    if operation is operator.truediv:
        if parts[1].constant is None:
            return "it divides by a metric"
        return "" if parts[1].constant > 0 else "it divides by a number that is not above 0"
    if operation is operator.mul and not all(part.positive for part in parts if _scales(part, parts)):
        return "it multiplies a metric by what may be below 0"
    return ""


def _scales(part: _Part, parts: list[_Part]) -> bool:
    """Whether a factor must not be negative: a constant, or either of two metrics."""
    return part.constant is not None or all(other.constant is None for other in parts)


def _is_positive(operation: object, parts: list[_Part]) -> bool:
    if operation is operator.sub:
        return parts[0].positive and (parts[1].constant or 0.0) <= 0
    return any(part.positive for part in parts) if operation is max else all(part.positive for part in parts)
