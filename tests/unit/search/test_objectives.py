"""Proves objectives and normalised accuracies against closed forms, and that only arithmetic is accepted."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.objectives import Objective, Role, role_metrics, task_metric

VALUES = {"target": 0.9, "control": 0.8, "mean": 0.85, "worst": 0.5, "accuracy": 0.7, 'task["mnist, clean"]': 0.25}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * target + control", 2.6),
        ("target", 0.9),
        (" (target - control) / 2 ", 0.05),
        ("-target + +control", -0.1),
        ("min(target, control, worst) + max(mean, 0.86)", 1.36),
        ('task["mnist, clean"] * 1e1', 2.5),
        ("task['mnist, clean'] - accuracy", -0.45),
    ],
)
def test_arithmetic(text: str, expected: float) -> None:
    assert Objective.parse(text, tasks=["mnist, clean"])(VALUES) == pytest.approx(expected)


@given(st.integers(-9, 9), st.integers(1, 9), st.sampled_from("+-*/"), st.sampled_from("+-*/"))
def test_precedence_is_that_of_python(a: int, b: int, first: str, second: str) -> None:
    text = f"{a} {first} {b} {second} target"
    assert Objective.parse(text)(VALUES) == pytest.approx(eval(text, {}, dict(VALUES)))


def test_an_objective_names_its_metrics_once_and_can_be_sent() -> None:
    objective = Objective.parse('target + task["a"] + target')
    assert objective.metrics == ("target", 'task["a"]')
    assert pickle.loads(pickle.dumps(objective)) == objective
    assert pickle.loads(pickle.dumps(objective))({"target": 1.0, 'task["a"]': 2.0}) == 4.0


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "target ** 9",
        "target if control else 0",
        "[target][0]",
        "target.real",
        "True * target",
        "1e999 * target",
        "1j * target",
        "9" * 400 + " * target",
        "min(target)",
        "max(target, control, key=abs)",
        "min(*task)",
        "sum(target, control)",
        "task[0] + target",
        "target < control",
        "(lambda: target)()",
        "target = 1",
        "target;control",
        "",
        "target +",
        "target\0",
        "'target'",
        "-" * 5000 + "target",
        "+".join(["target"] * 600),
        "(" * 300 + "target" + ")" * 300,
    ],
)
def test_only_arithmetic_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="objective"):
        Objective.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+".join(["target"] * 140), 140 * 0.9),
        ("-" * 900 + "target", 0.9),
        ("(" * 90 + "target" + ")" * 90, 0.9),
        ("min(target, " * 60 + "control" + ")" * 60, 0.8),
        ("target - control - mean / worst / accuracy", 0.9 - 0.8 - 0.85 / 0.5 / 0.7),
    ],
)
def test_long_and_deep_expressions_have_the_value_of_python(text: str, expected: float) -> None:
    try:
        objective = Objective.parse(text)
    except ValueError as error:  # how deep Python itself parses differs between versions
        assert "nested too deeply" in str(error)
        return
    assert objective(VALUES) == pytest.approx(expected)


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(ValueError, match="metric: unknown name 'traget': did you mean 'target'"):
        Objective.parse("2 * traget")
    with pytest.raises(ValueError, match="task: unknown name 'mnits': did you mean 'mnist'"):
        Objective.parse('task["mnits"]', tasks=["mnist", "svhn"])
    with pytest.raises(ValueError, match="uses no metric"):
        Objective.parse("2 + 2")
    with pytest.raises(ValueError, match="metric: unknown name .*did you mean .*mnist, clean"):
        Objective.parse('task["mnist, clear"]')(VALUES)


def test_a_division_by_zero_is_an_error_that_shows_the_values() -> None:
    for text in ("1 / (target - target)", "1e300 * target * 1e300"):
        with pytest.raises(ValueError, match=r"must be finite, got .* for {'target': 0.9}"):
            Objective.parse(text)(VALUES)


ROLES: dict[str, Role] = {"a": "target", "b": "control", "c": "control", "d": "ood"}


def test_a_control_that_is_better_when_lower_counts_reference_over_value() -> None:
    values = {"a": 0.81, "b": 0.3, "c": 1.25, "d": 0.1}
    metrics = role_metrics(values, ROLES, {"a": 0.9}, {"b": 0.6, "c": 1.0}, lower={"c"})
    found = [metrics[name] for name in ("control", "retained", "mean", "worst", 'task["c"]')]
    assert found == pytest.approx([(0.5 + 0.8) / 2, (0.3 + 0.8) / (0.6 + 1), (0.9 + 0.5 + 0.8) / 3, 0.5, 1.25])
    with pytest.raises(ValueError, match="task 'c': must be positive to divide by, got 0"):
        role_metrics({**values, "c": 0.0}, ROLES, {"a": 0.9}, {"b": 0.6, "c": 1.0}, lower={"c"})


def test_roles_give_normalised_accuracies() -> None:
    values = {"a": 0.81, "b": 0.3, "c": 0.6, "d": 0.1}
    metrics = role_metrics(values, ROLES, {"a": 0.9}, {"b": 0.6, "c": 0.5})
    assert metrics == pytest.approx(
        {
            "target": 0.9,
            "control": (0.5 + 1.2) / 2,
            "retained": (0.3 + 0.6) / (0.6 + 0.5),
            "mean": (0.9 + 0.5 + 1.2) / 3,
            "worst": 0.5,
            "accuracy": 0.81,
            'task["a"]': 0.81,
            'task["b"]': 0.3,
            'task["c"]': 0.6,
            'task["d"]': 0.1,
        }
    )


def test_without_control_tasks_control_is_a_constant_and_mean_is_the_targets() -> None:
    metrics = role_metrics({"a": 0.4, "b": 0.9}, {"a": "target", "b": "target"}, {"a": 0.8, "b": 0.9}, {})
    assert (metrics["target"], metrics["control"], metrics["mean"]) == pytest.approx((0.75, 1.0, 0.75))


def test_every_task_has_its_metric_whatever_its_name() -> None:
    for name in ('say "x"', "it's", "naïve\\"):
        values = role_metrics({name: 0.5}, {name: "target"}, {name: 1.0}, {})
        assert Objective.parse(f"1 * {task_metric(name)}", tasks=[name])(values) == 0.5


def test_bad_references_name_the_task() -> None:
    values = {"a": 0.81, "b": 0.3, "c": 0.6, "d": 0.1}
    with pytest.raises(ValueError, match="target reference of task 'a': the fine-tuned model's accuracy must be posi"):
        role_metrics(values, ROLES, {"a": 0.0}, {"b": 0.6, "c": 0.5})
    with pytest.raises(ValueError, match="control reference of task 'c': the pre-trained model's .*got 0"):
        role_metrics(values, ROLES, {"a": 0.9}, {"b": 0.6, "c": 0})
    with pytest.raises(ValueError, match="control reference: unknown name 'b'"):
        role_metrics(values, ROLES, {"a": 0.9}, {"c": 0.5})
    with pytest.raises(ValueError, match=r"must name the same tasks, differ in \['d'\]"):
        role_metrics({t: v for t, v in values.items() if t != "d"}, ROLES, {"a": 0.9}, {"b": 0.6, "c": 0.5})
    with pytest.raises(ValueError, match="at least one task must be a target"):
        role_metrics({"d": 0.1}, {"d": "ood"}, {}, {})
