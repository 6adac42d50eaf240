"""Proves that the value of the best of many is corrected without bias, and that drops lie in their intervals."""

import numpy as np
import pytest

from search.intervals import Array
from search.objective_arrays import objective_array, role_metric_arrays
from search.objectives import Objective, Role, role_metrics
from search.winners_curse import BagMeans, Choice, Prediction, predict


def predicted(outcomes_KN: Array, seed: int, test: int) -> Prediction:
    bag = BagMeans.of(outcomes_KN, seed, resamples=100)
    choice = Choice.of(bag.mean_A, bag.bag_RA, bag.left_out_RA, bag.elsewhere(test))
    return predict([choice, choice], outcomes_KN.shape[1])


def test_the_best_of_equals_is_corrected_to_what_all_are_worth() -> None:
    """30 candidates, each right on 70% of all samples; the mean of 40 estimates has a standard error of about 0.6%."""
    rng, found, held, dropped = np.random.default_rng(1), [], 0, 0
    for seed in range(40):
        one = predicted(rng.random((30, 100)) < 0.7, seed, 400)
        found.append((one.value, one.corrected.value))
        held += one.corrected.low <= 0.7 <= one.corrected.high
        dropped += one.drop.low <= (rng.random(400) < 0.7).mean() - one.value <= one.drop.high
    value, corrected = np.mean(found, axis=0)
    assert value > 0.77 and corrected == pytest.approx(0.7, abs=0.015) and min(held, dropped) >= 35


def test_without_a_choice_there_is_no_drop_and_a_larger_test_set_predicts_closer() -> None:
    outcomes = np.random.default_rng(2).random((1, 150)) < 0.6
    small, large = (predicted(outcomes, 0, test) for test in (50, 5000))
    assert large.drop.value == 0 and large.value == large.corrected.value == outcomes.mean()
    assert small.drop.high - small.drop.low > 1.5 * (large.drop.high - large.drop.low)
    assert large.corrected == small.corrected


def test_a_resample_that_leaves_nothing_out_is_not_counted() -> None:
    assert np.isnan(BagMeans.of(np.array([[1.0, 0.0]]), 0, 20).left_out_RA).any()
    assert np.isfinite(predicted(np.array([[1.0, 0.0]]), 0, 2).corrected.value)


@pytest.mark.parametrize(
    "text",
    ["2 * target + control", "retained", "min(mean, worst, 0.5) - max(accuracy, 0.1)", 'task["c"] / target', "-worst"],
)
@pytest.mark.parametrize("tasks", ["abcd", "ab"])
def test_objectives_of_arrays_are_those_of_numbers(text: str, tasks: str) -> None:
    """A and b are targets; d is measured in bits per byte."""
    if "c" not in tasks and "task" in text:
        text = 'task["a"] / target'
    rng = np.random.default_rng(0)
    values = {task: rng.uniform(0.1, 1, (3, 2)) for task in tasks}
    roles: dict[str, Role] = {task: "target" if task in "ab" else "control" for task in tasks}
    references, objective = dict(zip(tasks, rng.uniform(0.2, 1, len(tasks)), strict=True)), Objective.parse(text)
    lower = {"d"} & set(tasks)
    found = objective_array(objective, role_metric_arrays(values, roles, references, lower))
    for place in np.ndindex(3, 2):
        one = {task: float(value[place]) for task, value in values.items()}
        assert found[place] == pytest.approx(objective(role_metrics(one, roles, references, references, lower)))


def test_a_division_by_zero_is_infinite() -> None:
    metrics = role_metric_arrays({"a": np.array([0.0, 0.5])}, {"a": "target"}, {"a": 1.0})
    assert objective_array(Objective.parse("1 / target"), metrics).tolist() == [np.inf, 2]
