"""Proves that an arm that cannot work is refused before a run, with the field, the rule and the value."""

from typing import Any

import pytest
from toy import toy_spec

from pipeline.plan.plan import make_plan


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (
            {"x": {"merge": {"of": "y"}}, "y": {"merge": "sum"}},
            "arms.x: merge.of: must be a merge above this arm, got 'y', which is below: move it above",
        ),
        (
            {"a, b": {"merge": "sum"}, "c": {"merge": "sum"}, "x": {"merge": {"of": "none of them"}}},
            "got 'none of them'; known: 'a, b', 'c'",
        ),
        (
            {"x": {"merge": {"method": "consensus", "params": {"tall_lambda": "atuo"}}}},
            "arms.x: merge.params.tall_lambda: must be a number, one for each expert, or auto, got 'atuo'",
        ),
        ({"x": {"merge": "sum", "search": {"sampler": "greedy"}}}, "a merge by the method average"),
        ({"x": {"edit": "each_expert", "search": {"sampler": "greedy"}}}, "a merge by the method average"),
        (
            {"x": {"merge": {"method": "average", "weights": {"cats": 1}}, "search": {"sampler": "greedy"}}},
            "arms.x.search: greedy: searches the weights; leave merge.weights out",
        ),
        (
            {
                "x": {
                    "merge": "average",
                    "scaling": {"alpha": {"grid": [1, 2]}},
                    "search": {"sampler": "greedy"},
                }
            },
            "got alpha too",
        ),
        ({"x": {"merge": "average", "experts": ["cats"], "search": {"sampler": "greedy"}}}, "at least 2 models"),
        (
            {"x": {"merge": "average", "search": {"sampler": "greedy"}, "select": {"maximise": ["mean", "worst"]}}},
            "by one objective, got 2",
        ),
        ({"x": {"merge": {"of": "z"}}}, "must be a merge above"),
        (
            {"x": {"merge": {"method": "sum", "then": ["norm_match", "norm_mach"]}}},
            r"arms.x.merge.then\[1\]: unknown name 'norm_mach'; did you mean 'norm_match'",
        ),
        (
            {"x": {"merge": {"method": "sum", "then": [{"step": "norm_match", "params": {"by": "layer"}}]}}},
            r"merge.then\[0\]: norm_match: by: must be one of parameter, block, whole, got 'layer'",
        ),
        (
            {"x": {"merge": {"method": "sum", "then": [{"step": "norm_match", "params": {"per": "block"}}]}}},
            r"merge.then\[0\]: norm_match: unknown parameter 'per'",
        ),
        ({"TALL masks of mine": {"merge": "sum"}}, "are taken by the searches of mask lambdas"),
        (
            {"x": {"merge": "average", "scaling": {"function": "linear"}, "search": {"sampler": "greedy"}}},
            "constant scaling, got linear",
        ),
        (
            {"x": {"merge": "average", "search": {"sampler": "greedy", "trials": 3}}},
            "has no trials or options; leave them out",
        ),
    ],
)
def test_arms_that_cannot_work(arms: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(toy_spec(arms=arms, controls=[]))
