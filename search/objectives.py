"""Objectives: normalised accuracies and rewards, and arithmetic expressions over them."""

import ast
import json
import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

from search.names import unknown_name

Role: TypeAlias = Literal["target", "control", "ood"]

#: The metrics of `role_metrics`, without task["name"].
METRICS = ("target", "control", "retained", "mean", "worst", "accuracy")
#: The metrics of `reward_metrics`, without task["name"].
REWARD_METRICS = ("reward", "worst")

#: A longer expression is taken for a typing error.
_MAX_LENGTH = 1000

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max}

#: A number, the name of a metric, or an operation with the number of values that it takes.
Step: TypeAlias = float | str | tuple[Callable[..., float], int]


@cache
def task_metric(task: str) -> str:
    """Return the name of a task's own accuracy in an objective: task["name"]."""
    return f"task[{json.dumps(task, ensure_ascii=False)}]"


@dataclass(frozen=True, slots=True)
class Objective:
    """An arithmetic expression over metrics, to be maximised.

    Attributes:
        text: the expression as the user wrote it.
        metrics: the names of its metrics, in order of appearance.
        steps: the expression in reverse Polish notation: numbers, names, and operations with their number of operands.

    Example:
        >>> objective = Objective.parse("2 * target + control")
        >>> objective.metrics
        ('target', 'control')
        >>> objective({"target": 0.9, "control": 0.5})
        2.3
        >>> Objective.parse("control ** 2")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: objective 'control ** 2': 'control ** 2' is not allowed: use + - * /, ...
    """

    text: str
    metrics: tuple[str, ...]
    steps: tuple[Step, ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, tasks: Collection[str] | None = None, known: Sequence[str] = METRICS) -> "Objective":
        """Read + - * / over numbers, metric names, task["name"], min(...) and max(...).

        Args:
            text: an expression such as "2 * target + control" (section 3, with w_target = 2).
            tasks: the run's tasks, of which task["name"] must be one; None skips this check.
            known: names of the metrics: METRICS, or REWARD_METRICS in a run of rewards.

        Raises:
            ValueError: if the expression holds anything else, a metric or task is unknown, or it uses no metric.
        """
        steps = _compile(text, tasks, known)
        metrics = tuple(dict.fromkeys(step for step in steps if isinstance(step, str)))
        if not metrics:
            raise ValueError(f'objective {text!r}: uses no metric: known are {", ".join(known)} and task["name"]')
        return cls(text, metrics, steps)

    def __call__(self, values: Mapping[str, float]) -> float:
        """Return the objective's value.

        Args:
            values: metric -> value, as from `role_metrics`.

        Raises:
            ValueError: if a metric is not among the values, or the result is not finite.
        """
        try:
            result = _evaluate(self.steps, values)
        except KeyError as error:
            raise unknown_name(f"objective {self.text!r}: metric", error.args[0], values) from None
        except ZeroDivisionError:
            result = math.nan
        if not math.isfinite(result):
            used = {name: values[name] for name in self.metrics}
            raise ValueError(f"objective {self.text!r}: must be finite, got {result} for {used}")
        return result


def _parse(text: str) -> ast.expr:
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"objective {text[:50]!r}...: at most {_MAX_LENGTH} characters: use `mean` or `worst`")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte, before Python 3.12
        raise ValueError(f"objective {text!r}: not an arithmetic expression: {error}") from error
    except (RecursionError, MemoryError) as error:  # MemoryError: the parser's own stack is full
        raise ValueError(f"objective {text[:50]!r}...: nested too deeply: use fewer signs or parentheses") from error


def _compile(text: str, tasks: Collection[str] | None, known: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps of an expression in reverse Polish notation, after checking that it is only arithmetic.

    Neither this nor `_evaluate` recurses, so the depth of an expression that Python can parse is no limit.
    """
    steps: list[Step] = []
    left: list[ast.expr] = [_parse(text)]
    while left:  # an operation before its operands, the last operand first: the reverse of the notation
        step, operands = _step(left.pop(), text, tasks, known)
        steps.append(step)
        left += operands
    return tuple(reversed(steps))


def _step(
    node: ast.expr, text: str, tasks: Collection[str] | None, known: Sequence[str]
) -> tuple[Step, Sequence[ast.expr]]:
    """Return the step of one node, and its operands."""
    match node:
        case ast.Constant(value=int() | float() as number) if _is_finite(number):
            return float(number), ()
        case ast.Name(id=name):
            if name not in known:
                raise unknown_name(f"objective {text!r}: metric", name, (*known, 'task["name"]'))
            return name, ()
        case ast.Subscript(value=ast.Name(id="task"), slice=ast.Constant(value=str() as task)):
            if tasks is not None and task not in tasks:
                raise unknown_name(f"objective {text!r}: task", task, tasks)
            return task_metric(task), ()
        case ast.BinOp() if type(node.op) in _BINARY:
            return (_BINARY[type(node.op)], 2), (node.left, node.right)
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return (_UNARY[type(node.op)], 1), (node.operand,)
        case ast.Call(func=ast.Name(id=name), args=[_, _, *_], keywords=[]) if name in _FUNCTIONS:
            return (_FUNCTIONS[name], len(node.args)), node.args
    part = ast.get_source_segment(text.strip(), node) or text
    raise ValueError(
        f"objective {text!r}: {part!r} is not allowed: use + - * /, finite numbers, parentheses, "
        f'min(a, b), max(a, b), {", ".join(known)} and task["name"]'
    )


def _is_finite(number: float) -> bool:
    """Whether a literal is a finite number: no boolean, and no whole number beyond the largest float."""
    try:
        return not isinstance(number, bool) and math.isfinite(number)
    except OverflowError:
        return False


def _evaluate(steps: Sequence[Step], values: Mapping[str, float]) -> float:
    """Return the value of the steps that `_compile` returned."""
    stack: list[float] = []
    for step in steps:
        if isinstance(step, tuple):
            operation, count = step
            operands = stack[-count:]
            del stack[-count:]
            stack.append(operation(*operands))
        else:
            stack.append(values[step] if isinstance(step, str) else step)
    return stack[0]


def role_metrics(
    values: Mapping[str, float],
    roles: Mapping[str, Role],
    target_reference: Mapping[str, float],
    control_reference: Mapping[str, float],
    lower: Collection[str] = (),
) -> dict[str, float]:
    """Return the metrics of one candidate in one group, from the accuracy of each task.

    Of a control task whose smaller values are better, such as bits per byte, the normalised value is zero-shot value /
    value, so that 1 is the pre-trained model and more is better, as for accuracies.

    - target: mean over target tasks of accuracy / accuracy of the task's fine-tuned model (section 3, B.2);
    - control: mean over control tasks of accuracy / zero-shot accuracy (section 3); 1.0 without control tasks, so that
      one objective serves edits and merges;
    - retained: mean accuracy over control tasks / their mean zero-shot accuracy; this ratio of means suits control
      tasks on which the pre-trained model is near chance, whose own ratios are noise; 1.0 without control tasks; a task
      in `lower` counts as its normalised value, against 1;
    - mean, worst: mean and minimum of these normalised accuracies over target and control tasks;
    - accuracy: mean accuracy over target tasks;
    - task["name"]: accuracy of the task, or its value; the only metric of out-of-distribution tasks.

    Args:
        values: task -> accuracy, a fraction.
        roles: task -> role, for the same tasks.
        target_reference: target task -> accuracy of its fine-tuned model.
        control_reference: control task -> accuracy of the pre-trained model.
        lower: the control tasks whose smaller values are better.

    Raises:
        ValueError: if there is no target task, a task lacks a value, role or reference, or a reference is not positive,
            or a value in `lower`.
    """
    if values.keys() != roles.keys():
        raise ValueError(f"roles: values and roles must name the same tasks, differ in {sorted(values.keys() ^ roles)}")
    targets = [t for t, role in roles.items() if role == "target"]
    controls = [t for t, role in roles.items() if role == "control"]
    if not targets:
        raise ValueError(f"roles: at least one task must be a target, got {dict(roles)}")
    target = [values[t] / _reference(t, "target", target_reference) for t in targets]
    zero_shot = [_reference(t, "control", control_reference) for t in controls]
    control = [_gain(t, values[t], zero, t in lower) for t, zero in zip(controls, zero_shot, strict=True)]
    counted = [gain if t in lower else values[t] for t, gain in zip(controls, control, strict=True)]
    against = [1.0 if t in lower else zero for t, zero in zip(controls, zero_shot, strict=True)]
    metrics = {
        "target": _mean(target),
        "control": _mean(control) if control else 1.0,
        "retained": _mean(counted) / _mean(against) if controls else 1.0,
        "mean": _mean(target + control),
        "worst": min(target + control),
        "accuracy": _mean([values[t] for t in targets]),
    }
    return metrics | {task_metric(t): value for t, value in values.items()}


def reward_metrics(
    values: Mapping[str, float], start: Mapping[str, float], unit: Mapping[str, float]
) -> dict[str, float]:
    """Return the metrics of one candidate from its mean rewards.

    Rewards have different scales, so each is measured from the start model's mean, in standard deviations of the start
    model's scores over prompts: a unit that does not depend on the policies. An accuracy among them has its reference
    as unit, as in `role_metrics`: of the task's fine-tuned model, or of the start model for a control task.

    - reward: mean over the rewards of (value - start) / unit;
    - worst: their minimum;
    - task["name"]: the reward itself.

    Args:
        values: reward -> mean over completions.
        start: reward -> mean of the model from which all policies start (the SFT model).
        unit: reward -> standard deviation of the start model's scores, or an accuracy's reference.

    Raises:
        ValueError: if there is no reward, or a unit is not positive.
    """
    if not values:
        raise ValueError("rewards: at least one is needed, got none")
    standard = []
    for task, value in values.items():
        if not unit[task] > 0:
            raise ValueError(f"reward {task!r}: must vary over the start model's completions, got {unit[task]}")
        standard.append((value - start[task]) / unit[task])
    metrics = {"reward": _mean(standard), "worst": min(standard)}
    return metrics | {task_metric(t): value for t, value in values.items()}


def _gain(task: str, value: float, reference: float, lower: bool) -> float:
    """Return a value over its reference, or the reverse if smaller values are better."""
    if not lower:
        return value / reference
    if not value > 0:
        raise ValueError(f"task {task!r}: must be positive to divide by, got {value}")
    return reference / value


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _reference(task: str, role: Role, references: Mapping[str, float]) -> float:
    if task not in references:
        raise unknown_name(f"{role} reference", task, references)
    if not references[task] > 0:
        model = "fine-tuned" if role == "target" else "pre-trained"
        raise ValueError(
            f"{role} reference of task {task!r}: the {model} model's accuracy must be positive to divide by, "
            f"got {references[task]}: check its class names and checkpoint, score more samples, or leave the task out"
        )
    return references[task]
