"""Proves that the choice of a random method is scored with further seeds, and that the report has their spread."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.messages import EvalRequest, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.regress.baseline import read_place
from pipeline.report.data.estimates import Measure
from pipeline.report.tables.seeds import seeds_table
from pipeline.run.run import run

RANDOM = {"method": "dare", "params": {"drop": 0.5, "seed": 3}, "seeds": 4}
GRID = {"alpha": {"grid": [0.2, 0.4, 0.6]}}
ARMS = {
    "random": {"merge": RANDOM, "scaling": GRID},
    "near": {"merge": "sum", "scaling": {"alpha": 0.55}},
    "far": {"merge": "sum", "scaling": {"alpha": 0.1}},
}


class Lucky(ToyEvaluator):
    """A model loses 0.05 of its coefficient for each number of its seed."""

    def evaluate(self, request: EvalRequest) -> ShardScore:
        recipe = request.recipe
        seed = dict(recipe.params).get("seed", 0)
        assert isinstance(seed, int) and isinstance(recipe.alpha, int | float)
        score = super().evaluate(replace(request, recipe=replace(recipe, alpha=recipe.alpha - 0.05 * max(0, seed - 3))))
        return replace(score, request=request, alpha=float(recipe.alpha))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("seeds") / "run"
    run(make_plan(toy_spec(arms=ARMS, controls=[])), IDENTITY, place, lambda: LocalPool(Lucky()), None)
    return place


def test_the_choice_is_scored_with_the_seeds_after_its_own(folder: Path) -> None:
    measure = Measure.read(folder)
    chosen = next(c for c in measure.run.candidates if c.arm == "random" and c.chosen)
    further = [c for c in measure.run.candidates if c.arm == "random, seeds"]
    assert [dict(c.recipe.params)["seed"] for c in further] == [4, 5, 6] and not any(c.chosen for c in further)
    for candidate in further:
        same = {**dict(candidate.recipe.params), "seed": 3}
        assert replace(candidate.recipe, params=tuple(sorted(same.items()))) == chosen.recipe
        assert measure.run.scored(candidate).keys() == measure.run.scored(chosen).keys()
    assert [arm.name for arm in measure.arms] == ["pre-trained", "fine-tuned", "random", "near", "far"]
    assert {row.arm for row in read_place(str(folder)).rows} == {arm.name for arm in measure.arms}


def test_the_report_has_mean_spread_and_what_lies_within(folder: Path) -> None:
    measure = Measure.read(folder)
    rows = {row[1].text: [cell.text for cell in row] for row in seeds_table(measure).rows}
    assert list(rows) == ["mean accuracy", "OOD"]
    seeds = [c for c in measure.run.candidates if c.arm == "random" and c.chosen]
    seeds += [c for c in measure.run.candidates if c.arm == "random, seeds"]
    means = [
        100 * np.mean([measure.run.scored(c)[task, "test"].value for task in ("cats", "dogs", "cars")]) for c in seeds
    ]
    low, high = min(means), max(means)
    assert rows["mean accuracy"][2:] == [
        "4",
        *(f"{value:.1f}" for value in (means[0], np.mean(means), np.std(means, ddof=1))),
        f"{low:.1f} to {high:.1f}",
        "near",
    ]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": {"merge": {"method": "sum", "seeds": 2}}}, "arms.a.merge.seeds: sum has no random parts; methods that"),
        (
            {"a": {"merge": {"method": "dare", "params": {"seed": {"grid": [1, 2]}}, "seeds": 2}}},
            "arms.a.merge.seeds: scores the choice with further seeds; give params.seed one number",
        ),
        ({"a": {"merge": "sum"}, "b": {"merge": {"of": "a", "seeds": 2}}}, "give it to the arm 'a'"),
        ({"a": {"merge": RANDOM}, "a, seeds": {"merge": "sum"}}, "this name is taken by the seeds of the arm 'a'"),
    ],
)
def test_what_has_no_spread_is_refused(arms: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(toy_spec(arms=arms, controls=[]))
