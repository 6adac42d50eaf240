"""The objective of what an edit chose, on test, as a mean over samples: two models are compared sample by sample."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import CandidateRow
from search.intervals import Array, TaskOutcomes
from search.objectives import Objective, Role, role_metrics
from tasks.metrics import lower_is_better

#: Half the width over which a derivative is measured.
_STEP = 1e-6


def objective_outcomes(
    measure: Measure, arm: ArmResult, experts: Sequence[str], objectives: Sequence[str]
) -> list[TaskOutcomes] | None:
    """Return outcomes whose mean is the sum of the objectives on test, averaged over experts.

    A sum of normalised accuracies, such as 2 * target + control, is a weighted mean of each sample's outcomes. Any
    other objective is taken to first order in the mean of each task (the delta method), at the arm's own means. The
    references that normalise count as known constants.

    Args:
        measure: of the run.
        arm: an edit.
        experts: the groups to average over.
        objectives: expressions over the metrics of accuracies.

    Returns:
        One entry a task; None if the arm lacks a score or a reference.
    """
    totals: dict[str, Array] = {}
    value = 0.0
    for expert in experts:
        candidate = arm.chosen(expert)
        found = None if candidate is None else _linear(measure, candidate, objectives)
        if candidate is None or found is None:
            return None
        value += found[0] / len(experts)
        for task, weight in found[1].items():
            outcomes = measure.run.outcomes(candidate, task, "test")
            if outcomes is None:
                return None
            totals[task] = totals.get(task, 0.0) + weight / len(experts) * outcomes.astype(np.float64)
    means = {task: float(total_N.mean()) for task, total_N in totals.items()}
    rest = value - sum(means.values())
    tasks = [task for task in measure.run.task_names if task in totals]
    return [TaskOutcomes(task, totals[task] * len(tasks) + rest) for task in tasks]


def _linear(
    measure: Measure, candidate: CandidateRow, objectives: Sequence[str]
) -> tuple[float, dict[str, float]] | None:
    """Return a candidate's objective, and its derivative by the mean of each task; None if a reference is missing."""
    scores = {t: s for (t, at), s in measure.run.scored(candidate).items() if at == "test" and s.role != "ood"}
    lower = [task for task, score in scores.items() if lower_is_better(score.metric)]
    roles: dict[str, Role] = {task: score.role for task, score in scores.items()}  # type: ignore[misc]
    references = {}
    for task, score in scores.items():
        if score.normalised:
            references[task] = score.value * score.normalised if task in lower else score.value / score.normalised
        elif known := measure.references.get((task, score.role == "target", "test")):
            references[task] = known
    parsed = [Objective.parse(text) for text in objectives]

    def at(values: Mapping[str, float]) -> float:
        metrics = role_metrics(values, roles, references, references, lower)
        return sum(objective(metrics) for objective in parsed)

    values = {task: score.value for task, score in scores.items()}
    try:
        slopes = {
            task: (at({**values, task: mean + _STEP}) - at({**values, task: mean - _STEP})) / (2 * _STEP)
            for task, mean in values.items()
        }
        return at(values), slopes
    except ValueError:
        return None
