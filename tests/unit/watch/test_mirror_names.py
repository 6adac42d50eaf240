"""Proves that different tasks and arms have different names in MLflow and Weights & Biases, in every snapshot."""

from typing import Any

from pipeline.watch.mirrors.mlflow import _names, allowed_names
from pipeline.watch.mirrors.snapshot import CandidateSnapshot, RunSnapshot
from pipeline.watch.mirrors.wandb import WandbMirror

TASKS, ARMS = ("m_1", "m+1"), ("edit (1)", "edit =1=", "plain")


def snapshot(arms: tuple[str, ...]) -> RunSnapshot:
    metrics = {f"val/{task}": float(i) for i, task in enumerate(TASKS)} | {"objective": 1.0}
    rows = [CandidateSnapshot(arm, arm, arm, {"arm": arm, "point.alpha": "1"}, metrics, "", True) for arm in arms]
    return RunSnapshot("id", "run", {"tasks": dict.fromkeys(TASKS), "arms": dict.fromkeys(ARMS)}, {}, rows, True)


def test_names_that_would_become_equal_are_told_apart() -> None:
    shown = allowed_names(["val/m_1", "val/m+1", "val/m=1", "best/a, b", "objective"])
    assert len(set(shown.values())) == len(shown)
    assert shown["val/m_1"] == "val/m_1" and shown["best/a, b"] == "best/a_ b", "names without a twin stay as they were"
    assert shown["val/m+1"].startswith("val/m_1-") and shown["val/m=1"].startswith("val/m_1-")


def test_a_name_is_the_same_before_and_after_its_twin_has_a_value() -> None:
    early, late = _names(snapshot(ARMS[:1])), _names(snapshot(ARMS))
    assert {name: late[name] for name in early} == early
    assert len(set(late.values())) == len(late)


def test_columns_of_the_table_in_weights_and_biases_are_different() -> None:
    made: dict[str, Any] = {}

    class Wandb:
        """Keeps the table's columns."""

        @staticmethod
        def Table(columns: list[str], data: list[Any]) -> None:  # noqa: N802
            made.update(columns=columns, data=data)

    mirror = object.__new__(WandbMirror)
    mirror._wandb = Wandb
    mirror._table(snapshot(ARMS))
    assert len(set(made["columns"])) == len(made["columns"])
    assert [row[made["columns"].index("val/m+1")] for row in made["data"]] == [1.0, 1.0, 1.0]
