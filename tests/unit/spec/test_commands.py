"""Proves that a spec of another command is recognised, and that a misspelt task suggests the right name."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import toy_spec

from pipeline.spec.commands import MARKS, command_of
from pipeline.spec.load import SpecError, load_spec, parse_spec
from pipeline.spec.run import RunSpec
from pipeline.train.finetune.spec import FinetuneSpec, load_finetune_spec
from pipeline.train.ppo.spec import PpoSpec, load_ppo_spec

ROOT = Path(__file__).parents[3]
KINDS = {"run": RunSpec, "finetune": FinetuneSpec, "ppo": PpoSpec}
LOADERS: dict[str, Any] = {"run": load_spec, "finetune": load_finetune_spec, "ppo": load_ppo_spec}
EXAMPLES = {
    "run": ROOT / "examples" / "demo.yaml",
    "finetune": ROOT / "examples" / "embedded" / "finetune-lora.yaml",
    "ppo": ROOT / "examples" / "rewarded-soups" / "ppo.yaml",
}


def test_marks_are_fields_of_one_kind_only() -> None:
    for command, marks in MARKS.items():
        for other, kind in KINDS.items():
            assert marks & kind.model_fields.keys() == (marks if other == command else set())


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/**/*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_recognised(path: Path) -> None:
    command = "ppo" if path.stem.startswith("ppo") else "finetune" if path.stem.startswith("finetune") else "run"
    assert command_of(yaml.safe_load(path.read_text(encoding="utf-8"))) == command


@pytest.mark.parametrize("expected", LOADERS)
@pytest.mark.parametrize("given", LOADERS)
def test_a_spec_of_another_command_names_that_command(given: str, expected: str) -> None:
    if given == expected:
        return
    with pytest.raises(SpecError) as caught:
        LOADERS[expected](EXAMPLES[given])
    assert f"{EXAMPLES[given]}: is a spec of `lines {given}`, as it has" in str(caught.value)
    assert f"use lines {given} {EXAMPLES[given]}" in str(caught.value)


def test_a_spec_with_marks_of_its_own_is_checked_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**toy_spec().model_dump(mode="json"), "methods": {"full": {}}}))
    with pytest.raises(SpecError, match="methods: unknown key"):
        load_spec(tmp_path / "run.yaml")


RUN = {
    "name": "x",
    "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
    "base": "embedded/base",
    "arms": {"sum": {"merge": "sum"}},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # no embedded task has this name
        (
            {"experts": {"mnist": "ckpt"}, "tasks": ["mnits"]},
            "tasks.mnits: no field names it; did you mean 'mnist', as in experts.mnist?",
        ),
        # the task's own source has the right name
        (
            {"experts": {"cars": "ckpt"}, "tasks": {"cras": "data/cars"}},
            "tasks.cras: no field names it; did you mean 'cars'",
        ),
        # the checkpoint and an objective agree on the right name
        (
            {"experts": {"cars": "m/cars.pt"}, "tasks": ["data/cras"]},
            "did you mean 'cars', as in experts.cars, m/cars.pt?",
        ),
        (
            {"experts": {"cars": "ckpt"}, "tasks": ["data/cras"], "select": {"maximise": 'task["cars"]'}},
            "tasks.cras: no field names it; did you mean 'cars', as in experts.cars, select?",
        ),
        # the typing error is not in `tasks`
        (
            {"experts": {"mnits": "ckpt"}, "tasks": ["mnist"]},
            "experts.mnits: its task (or name it in `targets`): unknown task 'mnits'; did you mean 'mnist'?",
        ),
        (
            {"experts": {"a": "x"}, "targets": {"a": "dgos"}, "tasks": ["d/dogs"]},
            "targets.a: unknown task 'dgos'; did you mean 'dogs'?",
        ),
    ],
)
def test_a_misspelt_task_suggests_the_right_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_spec({**RUN, **changes})
