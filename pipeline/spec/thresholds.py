"""When `lines regress` calls a difference from the baseline a regression; never part of a run's result."""

from collections.abc import Collection
from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.parameters import require_known
from pipeline.spec.values import SpecModel


class Threshold(SpecModel):
    """What one task may lose, and what it must reach."""

    tolerance: float | None = Field(None, ge=0)
    """How much lower than the baseline's a mean may be; what is said further out where left out."""
    minimum: float | None = None
    """The least that a mean may be, whatever the baseline; none where left out everywhere."""


class ArmThreshold(Threshold):
    """What one arm may lose."""

    tasks: dict[str, Threshold] = {}
    """The same for single tasks of this arm."""


def _named(value: object) -> object:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


class Regress(SpecModel):
    """What `lines regress` compares, and what it calls a regression."""

    tolerance: float = Field(0.01, ge=0)
    """How much lower than the baseline's a mean may be: 0.01 is one point of accuracy; of rewards, in their unit."""
    level: float = Field(0.05, gt=0, lt=1)
    """The chance that a call without any true change finds a regression: Holm's correction over all comparisons."""
    minimum: float | None = None
    """The least that any mean may be, whatever the baseline."""
    arms: Annotated[dict[str, ArmThreshold], BeforeValidator(_named)] = {}
    """Arms to compare, a list, or arm -> its thresholds; where left out all but controls."""
    tasks: dict[str, Threshold] = {}
    """Task -> its thresholds, in every arm."""

    def threshold(self, arm: str, task: str) -> tuple[float, float | None]:
        """Tolerance and minimum of one comparison: of the arm's task, else the task, else the arm, else the run."""
        own = self.arms.get(arm, ArmThreshold())
        levels = (own.tasks.get(task, Threshold()), self.tasks.get(task, Threshold()), own)
        tolerances = [level.tolerance for level in levels if level.tolerance is not None]
        minima = [level.minimum for level in (*levels, self) if level.minimum is not None]
        return (tolerances or [self.tolerance])[0], minima[0] if minima else None


def check_regress(regress: Regress, arms: Collection[str], tasks: Collection[str]) -> None:
    """Every arm and task that thresholds are given for is one of the run's.

    Raises:
        ValueError: one is not; the message names the field.
    """
    for arm in regress.arms:
        require_known("regress.arms", arm, arms, "arm")
    for task in regress.tasks:
        require_known("regress.tasks", task, tasks, "task")
    for arm, thresholds in regress.arms.items():
        for task in thresholds.tasks:
            require_known(f"regress.arms.{arm}.tasks", task, tasks, "task")
