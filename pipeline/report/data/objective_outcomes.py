"""The objective of what an edit chose, on test, as a mean over samples: two models are compared sample by sample."""

from collections.abc import Mapping, Sequence

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.comparable import GroupTask
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import CandidateRow
from search.intervals import Array, TaskOutcomes, sample_means
from search.objectives import Objective, Role, role_metrics
from tasks.metrics import lower_is_better

#: Half the width over which a derivative is measured.
_STEP = 1e-6


def objective_outcomes(
    measure: Measure, arm: ArmResult, places: Sequence[GroupTask], objectives: Sequence[str]
) -> list[TaskOutcomes] | None:
    """Return outcomes whose mean is the sum of the objectives on test, averaged over experts.

    A sum of normalised accuracies, such as 2 * target + control, is a weighted mean of each sample's outcomes. Any
    other objective is taken to first order in the mean of each task (the delta method), at the arm's own means. The
    references that normalise count as known constants.

    Args:
        measure: of the run.
        arm: an edit.
        places: the experts to average over, each with the tasks of its objective.
        objectives: expressions over the metrics of accuracies.

    Returns:
        One entry a task; None if the arm lacks the score of a place or its reference.
    """
    tasks_of: dict[str, list[str]] = {}
    for place in places:
        tasks_of.setdefault(place.group, []).append(place.task)
    totals: dict[str, Array] = {}
    value = 0.0
    for expert, its in tasks_of.items():
        candidate = arm.chosen(expert)
        found = None if candidate is None else _linear(measure, candidate, its, objectives)
        if candidate is None or found is None:
            return None
        value += found[0] / len(tasks_of)
        for task, weight in found[1].items():
            outcomes = measure.run.outcomes(candidate, task, "test")
            if outcomes is None:
                return None
            wide = sample_means(outcomes, measure.run.draws)
            totals[task] = totals.get(task, 0.0) + weight / len(tasks_of) * wide
    means = {task: float(total_N.mean()) for task, total_N in totals.items()}
    rest = value - sum(means.values())
    tasks = [task for task in measure.run.task_names if task in totals]
    return [TaskOutcomes(task, totals[task] * len(tasks) + rest) for task in tasks]


def _linear(
    measure: Measure, candidate: CandidateRow, tasks: Sequence[str], objectives: Sequence[str]
) -> tuple[float, dict[str, float]] | None:
    """Return a candidate's objective and its derivative by the mean of each task; None without a score or reference."""
    scored = measure.run.scored(candidate)
    scores = {task: scored[task, "test"] for task in tasks if (task, "test") in scored}
    if len(scores) < len(tasks):  # an objective of fewer tasks is another one
        return None
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
