"""Proves how many numbers validation chooses for an arm, and what its candidates learn from, by hand."""

from typing import Any

import pytest
from toy import SAMPLES, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.sizing.work import combined_vectors, work_of

SEARCHED = {"range": [0, 1]}
GRID = {"grid": [0.5, 1]}
LAMBDAS = {"method": "weighted", "lambdas": 5}


@pytest.mark.parametrize(
    ("arm", "free", "learns_from"),
    [
        ({"merge": "sum", "scaling": {"alpha": 0.5}}, 0, "none"),
        ({"merge": "sum", "scaling": {"function": "linear", "alpha": SEARCHED, "beta": "1 - alpha"}}, 1, "none"),
        (
            {
                "merge": {"method": "fisher"},
                "scaling": {
                    "function": "grouped",
                    "params": {"factors": [SEARCHED, 0.5, SEARCHED]},
                    "beta": 1,
                    "outside": SEARCHED,
                    "components": {"mlp": SEARCHED, "norms": 0},
                },
            },
            4,
            "inputs",
        ),
        ({"merge": "atlas"}, 0, "inputs, labels"),
        ({"merge": LAMBDAS}, 2, "none"),
        ({"merge": {"method": "consensus", "params": {"tall_lambda": "auto"}}, "scaling": {"alpha": GRID}}, 4, "none"),
        ({"merge": {"of": "above"}, "scaling": {"alpha": GRID}}, 2, "inputs"),
        ({"merge": {"method": "dare", "seeds": 3}, "scaling": {"alpha": GRID}}, 1, "none"),
    ],
)
def test_free_scalars_are_what_validation_chooses(arm: dict[str, Any], free: int, learns_from: str) -> None:
    above = {"merge": {"method": "fisher"}, "scaling": {"alpha": GRID}}
    plan = make_plan(toy_spec(arms={"above": above, "x": arm}, controls=["uniform"]))
    work = {w.arm: w for w in work_of(plan, dict.fromkeys(plan.groups[0].roles, (SAMPLES["val"], SAMPLES["test"])))}
    assert (work["x"].free, work["x"].learns_from) == (free, learns_from)
    assert (work["fine-tuned"].free, work["fine-tuned"].learns_from) == (0, "none")
    if "x, seeds" in work:
        assert work["x, seeds"].free == free and work["x, seeds"].candidates == 2
    if "x, uniform" in work and arm["merge"] != LAMBDAS:
        assert work["x, uniform"].free == free  # its constant follows from what x chooses


def test_one_combined_vector_serves_all_factors_and_exponents() -> None:
    scaling = {"function": "power", "beta": 1, "params": {"p": GRID}, "components": {"mlp": GRID, "norms": GRID}}
    assert combined_vectors(make_plan(toy_spec(arms={"x": {"merge": "sum", "scaling": scaling}}, controls=[]))) == 1
