"""Proves that the report reads the tables of the real driver over a toy evaluator."""

from pathlib import Path

import pytest
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.messages import EvalRequest, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.report.page import build, summary
from pipeline.run.run import run


class Failing(ToyEvaluator):
    """Fails on the candidates of the merge arm with a large alpha."""

    def evaluate(self, request: EvalRequest) -> ShardScore:
        if request.recipe.method == "sum" and float(request.recipe.alpha) > 0.9:
            raise ValueError("no accuracy above 0.9")
        return super().evaluate(request)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "run"
    run(make_plan(toy_spec()), IDENTITY, folder, lambda: LocalPool(Failing()), None)
    return folder


def test_every_arm_has_a_row_and_every_failure_is_shown(folder: Path) -> None:
    markdown = build(folder)[1].read_text(encoding="utf-8")
    for name in ("pre-trained", "fine-tuned", "LiNeS", "LiNeS, constant", "LiNeS, reversed", "LiNeS, uniform", "merge"):
        assert f"| {name} |" in markdown
    assert "no accuracy above 0.9" in markdown


def test_summary_compares_with_the_plain_arm_and_each_control(folder: Path) -> None:
    found = summary(folder)
    assert found.sentences[0].startswith("LiNeS: Here the profile over depth")
    assert "Against fine-tuned: " in found.sentences[0] and len(found.tables) == 3
