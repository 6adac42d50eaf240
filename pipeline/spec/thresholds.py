"""Thresholds of `lines regress`: when a difference from the baseline is a regression; never part of a result."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.parameters import require_known
from pipeline.spec.values import SpecModel
from tasks.metrics import lower_is_better


class Threshold(SpecModel):
    """How much one task may lose, and the least it must reach."""

    tolerance: float | None = Field(None, ge=0)
    """How far a mean may fall below the baseline's; default: the threshold one level out."""
    minimum: float | None = None
    """Least allowed mean, for any baseline; default: the minimum one level out, if any."""
    maximum: float | None = None
    """Largest allowed mean of tasks in bits per byte, in place of a minimum; default: that one level out, if any."""


class ArmThreshold(Threshold):
    """How much one arm may lose."""

    tasks: dict[str, Threshold] = {}
    """Task -> its thresholds, in this arm."""


def _named(value: object) -> object:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


class Regress(SpecModel):
    """The arms that `lines regress` compares, and what it calls a regression."""

    tolerance: float = Field(0.01, ge=0)
    """How far a mean may fall below the baseline's: 0.01 is one point of accuracy; other metrics use their own unit."""
    level: float = Field(0.05, gt=0, lt=1)
    """Chance of a false regression in one call, with Holm's correction over all comparisons."""
    minimum: float | None = None
    """Least allowed mean, for any baseline."""
    arms: Annotated[
        dict[str, ArmThreshold], BeforeValidator(_named, json_schema_input_type=list[str] | dict[str, ArmThreshold])
    ] = {}
    """Arms to compare, or arm -> its thresholds; default: all but controls."""
    tasks: dict[str, Threshold] = {}
    """Task -> its thresholds, in all arms."""

    def threshold(self, arm: str, task: str) -> tuple[float, float | None]:
        """Return tolerance and minimum: the first that is given for the arm's task, the task, the arm, the run."""
        levels = self._levels(arm, task)
        tolerances = [level.tolerance for level in levels if level.tolerance is not None]
        minima = [minimum for minimum in (*(level.minimum for level in levels), self.minimum) if minimum is not None]
        return (tolerances or [self.tolerance])[0], minima[0] if minima else None

    def maximum(self, arm: str, task: str) -> float | None:
        """Return the largest allowed mean, of a task in bits per byte: the first that is given, as in `threshold`."""
        return next((level.maximum for level in self._levels(arm, task) if level.maximum is not None), None)

    def _levels(self, arm: str, task: str) -> tuple[Threshold, ...]:
        own = self.arms.get(arm, ArmThreshold())
        return own.tasks.get(task, Threshold()), self.tasks.get(task, Threshold()), own


def check_regress(regress: Regress, arms: Collection[str], tasks: Collection[str]) -> None:
    """Require that every arm and task with thresholds is in the run.

    Raises:
        ValueError: if one is not; the message names the field.
    """
    for arm in regress.arms:
        require_known("regress.arms", arm, arms, "arm")
    for task in regress.tasks:
        require_known("regress.tasks", task, tasks, "task")
    for arm, thresholds in regress.arms.items():
        for task in thresholds.tasks:
            require_known(f"regress.arms.{arm}.tasks", task, tasks, "task")


def check_bounds(regress: Regress, metrics: Mapping[tuple[str, str], str]) -> None:
    """Require that each bound is used: a maximum by tasks in bits per byte, a minimum by others.

    Args:
        regress: the thresholds.
        metrics: (arm, task) -> metric, of all that is compared.

    Raises:
        ValueError: if none of the tasks that a bound is for can use it; the message names the field.
    """
    for field, bounds, (arm, task) in _bounds(regress):
        found = [metric for (a, t), metric in metrics.items() if arm in ("", a) and task in ("", t)]
        if not found:
            continue
        if bounds.minimum is not None and all(map(lower_is_better, found)):
            what = task or "every task that it is for"
            hint = "give maximum, to a task or an arm"
            raise ValueError(f"{field}.minimum: {what} is in bits per byte, of which fewer are better; {hint}")
        if bounds.maximum is not None and not any(map(lower_is_better, found)):
            raise ValueError(f"{field}.maximum: is for tasks in bits per byte, got {found[0]}; give minimum")


def _bounds(regress: Regress) -> Iterator[tuple[str, Threshold, tuple[str, str]]]:
    """Yield the field, its bounds, and the arm and the task that they are for; "" for all of them."""
    yield "regress", Threshold(minimum=regress.minimum), ("", "")
    for task, own in regress.tasks.items():
        yield f"regress.tasks.{task}", own, ("", task)
    for arm, thresholds in regress.arms.items():
        yield f"regress.arms.{arm}", thresholds, (arm, "")
        for task, own in thresholds.tasks.items():
            yield f"regress.arms.{arm}.tasks.{task}", own, (arm, task)
