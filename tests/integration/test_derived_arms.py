"""Proves that arms which build on other arms' choices get them, and curves are scored on test, in resumed runs too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from toy import IDENTITY, TASKS, ToyEvaluator, accuracy, toy_spec

from pipeline.cli.report import show_report
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.run.run import rebuild, run

GRID = {"grid": [0.0, 0.5, 1.0]}
ARMS: dict[str, Any] = {
    "WiSE-FT": {"edit": "each_expert", "scaling": {"alpha": GRID}, "test": "every"},
    "soup": {"merge": "average", "search": {"sampler": "greedy"}},
    "soup + LiNeS": {"merge": {"of": "soup"}, "scaling": {"function": "linear", "alpha": 1, "beta": GRID}},
}
#: A soup is of one task, where every expert counts; here each expert does best on a task of its own.
SPEC = toy_spec(arms=ARMS, select={"maximise": "mean"})


def work(folder: Path, watch: Callable[[object], None] = lambda progress: None) -> ToyEvaluator:
    evaluator = ToyEvaluator()
    run(make_plan(SPEC), IDENTITY, folder, lambda: LocalPool(evaluator), None, watch)
    return evaluator


def rows(folder: Path, table: str, arm: str) -> list[dict[str, Any]]:
    return [r for r in pq.read_table(folder / f"{table}.parquet").to_pylist() if r["arm"] == arm]


def test_a_greedy_soup_ranks_the_experts_on_validation_and_keeps_what_helps(tmp_path: Path) -> None:
    work(tmp_path)
    tried = rows(tmp_path, "candidates", "soup")
    assert len(tried) == 2 * len(TASKS) - 1
    alone = tried[: len(TASKS)]
    assert [r["weights"] for r in alone] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    ranked = sorted(range(len(TASKS)), key=lambda i: -alone[i]["objectives"][0])
    soup, best = {ranked[0]}, alone[ranked[0]]["objectives"][0]
    for model, row in zip(ranked[1:], tried[len(TASKS) :], strict=True):
        assert row["weights"] == [int(i in soup | {model}) for i in range(len(TASKS))]
        if row["objectives"][0] > best:
            soup, best = soup | {model}, row["objectives"][0]
    (chosen,) = [r for r in tried if r["chosen"]]
    assert chosen["weights"] == [int(i in soup) for i in range(len(TASKS))]


def test_the_arm_that_scales_it_has_its_experts(tmp_path: Path) -> None:
    work(tmp_path)
    (soup,) = [r for r in rows(tmp_path, "candidates", "soup") if r["chosen"]]
    for arm in ("soup + LiNeS", "soup + LiNeS, constant", "soup + LiNeS, reversed"):
        found = [r for r in rows(tmp_path, "candidates", arm) if r["method"] != "zero"]
        assert found and all((r["method"], r["weights"]) == (soup["method"], soup["weights"]) for r in found), arm
    for arm, prefix in (("soup + LiNeS, uniform", "uniform:"), ("soup + LiNeS, equal norm", "equal_norm:")):
        (parent,) = [r for r in rows(tmp_path, "candidates", "soup + LiNeS") if r["chosen"]]
        (row,) = rows(tmp_path, "candidates", arm)
        assert row["scaling"] == (f"{prefix}linear" if parent["beta"] else "constant")


def test_every_point_of_a_curve_is_scored_on_test_and_no_other(tmp_path: Path) -> None:
    evaluator = work(tmp_path)
    curve = {(r["group"], r["number"]) for r in rows(tmp_path, "scores", "WiSE-FT") if r["split"] == "test"}
    assert curve == {(task, number) for task in TASKS for number in range(3)}
    values = [r for r in rows(tmp_path, "scores", "WiSE-FT") if (r["task"], r["split"]) == ("cats", "test")]
    half = next(r["value"] for r in values if r["group"] == "cats" and r["number"] == 1)
    assert half == pytest.approx(accuracy(Recipe.make("single", alpha=0.5, weights=(1, 0, 0)), "cats"), abs=0.1)
    lines = {r["number"] for r in rows(tmp_path, "scores", "soup + LiNeS") if r["split"] == "test"}
    assert len(lines) == 1
    asked = [r.key for r in evaluator.evaluated]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("steps", [30, 70, 90, 110])
def test_a_resumed_run_equals_an_undisturbed_one(tmp_path: Path, steps: int) -> None:
    def stop(progress: object) -> None:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise KeyboardInterrupt

    work(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "cut", stop)
    rebuild(tmp_path / "cut")
    work(tmp_path / "cut")
    for table in ("candidates.parquet", "scores.parquet"):
        assert (tmp_path / "cut" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()


class LosingPool(LocalPool):
    """A pool whose worker is lost at every attempt of every shard of some recipes."""

    def __init__(self, loses: Callable[[Recipe], bool]) -> None:
        super().__init__(ToyEvaluator())
        self._loses = loses

    def wait(self, timeout: float | None = None) -> list[ShardScore | Failure]:
        answers = super().wait(timeout)
        return [Failure(a.request, "lost", "gone") if self._loses(a.request.recipe) else a for a in answers]


@pytest.mark.parametrize("method", ["single", "average", "sum"])
def test_what_followed_from_lost_shards_is_searched_again_once_they_are_scored(tmp_path: Path, method: str) -> None:
    merge = {"merge": "sum", "scaling": {"alpha": {"range": [0.0, 1.0]}}}
    plan = make_plan(toy_spec(arms={**ARMS, "tpe": {**merge, "search": {"sampler": "tpe", "trials": 14}}}))
    seen: list[Recipe] = []

    def loses(recipe: Recipe) -> bool:
        """Lose the first two candidates of the method; for `single`, only candidates that no reference needs."""
        fits = recipe.method == method and (method != "single" or (recipe.scaling, recipe.alpha) != ("constant", 1))
        if fits and recipe not in seen:
            seen.append(recipe)
        return recipe in seen[:2]

    run(plan, IDENTITY, tmp_path / "lost", lambda: LosingPool(loses), None)
    assert len(seen) >= 2 and json.loads((tmp_path / "lost" / "provenance.json").read_text())["failures"]
    for folder in ("lost", "whole"):
        run(plan, IDENTITY, tmp_path / folder, lambda: LocalPool(ToyEvaluator()), None)
    rebuild(tmp_path / "lost")
    for table in ("candidates.parquet", "scores.parquet"):
        assert (tmp_path / "lost" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()


class Broken(ToyEvaluator):
    def evaluate(self, request: EvalRequest) -> ShardScore:
        if request.recipe.method == "tall_mask":
            raise ValueError("no mask")
        return super().evaluate(request)


def test_an_arm_whose_parents_all_failed_is_recorded_and_the_run_ends(tmp_path: Path) -> None:
    scaling = {"function": "linear", "alpha": "auto", "beta": GRID}
    arms = {
        "consensus": {"merge": {"method": "consensus", "params": {"tall_lambda": "auto"}}},
        "scaled": {"merge": {"of": "consensus"}, "scaling": scaling},
        "sum": {"merge": "sum"},
    }
    plan = make_plan(toy_spec(arms=arms, controls=["uniform"]))
    run(plan, IDENTITY, tmp_path, lambda: LocalPool(Broken()), None)
    causes = {g["arm"]: g["cause"] for g in json.loads((tmp_path / "provenance.json").read_text())["not_searched"]}
    assert list(causes) == ["consensus", "scaled", "scaled, constant", "scaled, uniform", "scaled, equal norm"]
    assert "TALL masks (cats)" in causes["consensus"] and causes["scaled"] == "nothing could be chosen of consensus"
    assert len(rows(tmp_path, "candidates", "sum")) == 1


def test_an_arm_whose_objective_has_no_value_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"half": {"merge": "sum", "select": {"maximise": "target / 0"}}, "sum": {"merge": "sum"}}
    run(make_plan(toy_spec(arms=arms, controls=[])), IDENTITY, tmp_path, lambda: LocalPool(ToyEvaluator()), None)
    assert show_report(tmp_path, "place") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "nothing chosen: half: all 1 candidates failed; the first: objective 'target / 0': must be finite" in words
