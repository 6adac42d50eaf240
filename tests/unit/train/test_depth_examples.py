"""Proves that the specs of docs/when-depth-matters.md are valid, and edit models that their fine-tuning makes."""

from pathlib import Path

import pytest

from pipeline.plan.plan import make_plan
from pipeline.spec.load import load_spec
from pipeline.train.finetune.spec import load_finetune_spec, runs_of

EXAMPLES = Path(__file__).parents[3] / "examples" / "depth"
TRAINED = {spec.name: spec for spec in map(load_finetune_spec, EXAMPLES.glob("finetune-*.yaml"))}
RUNS = [path for path in sorted(EXAMPLES.glob("*.yaml")) if not path.stem.startswith("finetune-")]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_runs_edit_what_is_trained(path: Path) -> None:
    spec = load_spec(path)
    assert make_plan(spec).searched and spec.name == f"depth-{path.stem}"
    (name,) = {expert.split("/")[1] for expert in spec.experts.values()}
    training = TRAINED[name]
    assert (spec.base, spec.backbone) == (training.base, training.backbone)
    assert set(spec.experts.values()) <= {f"runs/{name}/{run.name}" for run in runs_of(training)}
    assert {task: training.tasks.get(task) for task in spec.tasks} == spec.tasks
