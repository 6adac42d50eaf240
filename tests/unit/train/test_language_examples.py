"""Proves that the specs of experts of language models and of the sweeps over them are valid and agree."""

from pathlib import Path

import pytest

from pipeline.plan.plan import make_plan
from pipeline.spec.load import load_spec
from pipeline.train.finetune.spec import load_finetune_spec, runs_of

EXAMPLES = Path(__file__).parents[3] / "examples" / "language"


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_training_and_sweep_agree(name: str) -> None:
    training, sweep = load_finetune_spec(EXAMPLES / f"finetune-{name}.yaml"), load_spec(EXAMPLES / f"{name}.yaml")
    make_plan(sweep)
    assert (sweep.base, sweep.backbone) == (training.base, training.backbone)
    assert sweep.experts == {run.task: f"runs/{training.name}/{run.name}" for run in runs_of(training)}
    assert sweep.tasks == training.tasks
