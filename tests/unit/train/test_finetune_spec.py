"""Proves that a spec of `lines finetune` gives the right models, and that errors name field and rule."""

import re
from pathlib import Path
from typing import Any

import pytest
from small_finetune import read_finetune

from pipeline.spec.load import SpecError
from pipeline.train.finetune.spec import FinetuneRun, FinetuneTraining, load_finetune_spec, runs_of

EXAMPLES = Path(__file__).parents[3] / "examples"
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "finetuning.md"


def runs(tmp_path: Path, **changes: Any) -> dict[str, FinetuneRun]:
    return {run.name: run for run in runs_of(read_finetune(tmp_path, **changes))}


def test_every_method_is_applied_to_every_task_and_runs_follow(tmp_path: Path) -> None:
    found = runs(tmp_path, tasks=["emoji", "icons"], runs={"soup/0": {"task": "icons", "training": {"seed": 7}}})
    assert list(found) == ["full/emoji", "full/icons", "lora/emoji", "lora/icons", "soup/0"]
    assert found["lora/icons"].task == "icons" and found["lora/icons"].params == {"rank": 2, "scale": 1.0}
    assert (found["soup/0"].method, found["soup/0"].settings.seed) == ("full", 7)


def test_the_more_specific_level_wins_and_the_rest_has_defaults(tmp_path: Path) -> None:
    methods = {"slow": {"method": "full", "training": {"lr": 1e-6, "epochs": 3}}, "last_block": {}}
    found = runs(tmp_path, methods=methods)
    slow, last = found["slow/emoji"].settings, found["last_block/emoji"].settings
    assert (slow.lr, slow.steps, slow.epochs, slow.batch_size) == (1e-6, None, 3, 16)
    assert (last.lr, last.steps, last.epochs) == (1e-4, 6, None)
    assert (last.weight_decay, last.warm_up, last.label_smoothing, last.seed) == (0.1, 0.1, 0.0, 0)


def test_a_path_next_to_the_spec_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "birds" / "train").mkdir(parents=True)
    spec = read_finetune(tmp_path, tasks={"birds": "./birds"})
    assert spec.tasks["birds"].source == str((tmp_path / "birds").resolve())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"ful": {}}}, "methods.ful.method: unknown name 'ful'; did you mean 'full'"),
        ({"runs": {"a": {"task": "emojis"}}}, "runs.a.task: unknown name 'emojis'; did you mean 'emoji'"),
        (
            {"tasks": ["emojy", "icons"], "runs": {"a": {"task": "emoji"}}},
            "tasks.emojy: no field names it; did you mean 'emoji', as in runs.a.task?",
        ),
        (
            {"tasks": ["data/cras"], "methods": {}, "runs": {"a": {"task": "cars"}, "b": {"task": "cars"}}},
            "tasks.cras: no field names it; did you mean 'cars', as in runs.a.task, runs.b.task?",
        ),
        ({"methods": {"lora": {"params": {"ranks": 2}}}}, "methods.lora.params of lora: unknown name 'ranks'"),
        ({"methods": {"lora": {"params": {"rank": 0}}}}, "methods.lora.params.rank: must be in [1, inf), got 0"),
        ({"methods": {"lora": {"params": {"rank": 2.5}}}}, "methods.lora.params.rank: must be a whole number, got 2.5"),
        ({"methods": {"exponential": {"params": {"factor": 0}}}}, "params.factor: must be in (0, 1], got 0"),
        ({"methods": {"full": {"params": {"rank": 4}}}}, "methods.full.params of full: unknown name 'rank'"),
        ({"training": {"steps": 5}}, "methods.full.training.lr: must be given"),
        ({"training": {"lr": 0.1}}, "methods.full.training.steps: must be given (or epochs)"),
        ({"training": {"lr": 0.1, "steps": 5, "epochs": 1}}, "training: exactly one of steps and epochs"),
        ({"training": {"lr": -1, "steps": 5}}, "training.lr: must be greater than 0, got -1"),
        ({"training": {"lr": 0.1, "steps": 5, "warmup": 0.2}}, "training.warmup: unknown key; did you mean 'warm_up'"),
        (
            {"training": {"lr": 0.1, "steps": 5, "augment": "flip"}},
            "training.augment: must be 'none', 'jitter'",
        ),
        ({"methods": {}}, "methods: give at least one, such as methods: {full: {}}"),
        ({"runs": {"full/emoji": {"task": "emoji"}}}, "runs.full/emoji: this name is taken by a method and its task"),
        ({"runs": {"full": {"task": "emoji"}}}, "runs.full: its folder would hold that of full/emoji"),
        ({"runs": {"../a": {"task": "emoji"}}}, "runs.../a: string should match pattern"),
        ({"backbone": {"family": "open_clip", "model": "m", "precision": "float16"}}, "must be float32 or bfloat16"),
        ({"expert": "a"}, "expert: unknown key"),
    ],
)
def test_a_wrong_spec_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        read_finetune(tmp_path, **changes)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("finetune*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_examples_are_valid_and_write_where_their_name_says(path: Path) -> None:
    spec = load_finetune_spec(path)
    own = {"language/finetune": "language-experts"}.get(f"{path.parent.name}/{path.stem}", path.stem)
    names = {"paper": f"paper-{own}", "depth": own.replace("finetune-", "finetune-depth-")}
    assert spec.name == names.get(path.parent.name, own)
    assert runs_of(spec)


def test_the_guide_describes_every_field_of_the_training_by_its_docstring() -> None:
    section = GUIDE.read_text(encoding="utf-8").split("### training\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{name}` | {field.description} |" for name, field in FinetuneTraining.model_fields.items()]
