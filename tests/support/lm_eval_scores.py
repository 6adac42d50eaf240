"""What our task and lm-eval itself make of the same documents."""

from pathlib import Path
from typing import Any

import pytest

from tasks.base import TaskRequest
from tasks.language.lm_eval.loading import load

COUNT = 24


def ours(tasks: Path, backbone: Any, name: str, limits: Any = None, test_only: bool = False, **options: Any) -> Any:
    """Return our task of that name."""
    options = {"include_path": str(tasks), **options}
    return load(TaskRequest("mine", f"lm_eval/{name}", limits or {}, options, test_only=test_only), backbone)


def theirs(tasks: Path, model: Path, monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> dict[str, Any]:
    """Return what lm-eval itself finds; it takes the paths of data from the working folder."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tasks)
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # seconds of pip and git
    manager = TaskManager(include_defaults=False, include_path=str(tasks))
    own = HFLM(pretrained=str(model), device="cpu", batch_size=16)
    found = lm_eval.simple_evaluate(own, tasks=[name], task_manager=manager, bootstrap_iters=0, **options)
    assert found is not None
    return dict(found)


def documents(task: Any, split: str) -> list[dict[str, Any]]:
    """Return the documents of val or test."""
    return list(task._documents.splits[split].documents)


def row_of(document: dict[str, Any]) -> int:
    """Return the row of a document within its split."""
    return int(document["text"].split()[-1]) % COUNT
