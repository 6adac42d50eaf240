"""Proves which documents of a task of lm-eval val and test are, and what its fingerprint is of."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval_scores import COUNT, documents, ours, theirs
from lm_eval_tasks import write_tasks
from safetensors.torch import load_file

from tasks.language.causal import build

pytest.importorskip("lm_eval")


def test_val_is_the_validation_split_and_test_what_lm_eval_scores(tasks: Path, backbone: Any) -> None:
    task = ours(tasks, backbone, "tiny_choices", {"val": 5})
    assert (task.num_samples("val"), task.num_samples("test"), task.metric) == (5, COUNT, "accuracy")
    assert documents(task, "val")[0]["text"].endswith(f"Package {COUNT}")
    assert documents(task, "test")[0]["text"].endswith(f"Package {2 * COUNT}")
    train = ours(tasks, backbone, "tiny_choices", val_split="train")
    assert documents(train, "val")[0]["text"].endswith("Package 0")
    shots = ours(tasks, backbone, "tiny_choices", val_split="train", num_fewshot=3)
    for document, (request, *_) in zip(documents(shots, "val"), shots._built(backbone, "val"), strict=True):
        assert request.args[0].count(document["text"]) == 1
    assert train.fingerprint != task.fingerprint
    with pytest.raises(ValueError, match=r"options\.val_split: 'test' is the split that is scored as test"):
        ours(tasks, backbone, "tiny_choices", val_split="test")
    with pytest.raises(ValueError, match=r"options\.val_split: 'trains' is no split .*'train'"):
        ours(tasks, backbone, "tiny_choices", val_split="trains")


def test_one_split_is_divided_by_content(tasks: Path, backbone: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Val and test have no document in common, and together all of them; examples come from val alone."""
    task = ours(tasks, backbone, "tiny_one_split", val_fraction=0.5, num_fewshot=3)
    val, test = set(task.keys("val")), set(task.keys("test"))
    assert not val & test and len(val) + len(test) == COUNT and val and test
    assert f"scores the split test alone: {len(val)} documents become val and {len(test)} test" in caplog.text
    assert set(ours(tasks, backbone, "tiny_one_split", val_fraction=0.25).keys("val")) < val
    texts = {d["text"] for d in documents(task, "val")}
    assert {d["text"] for d in task._task.sampler.df} == texts
    for split in ("val", "test"):
        for document, (request, *_) in zip(documents(task, split), task._built(backbone, split), strict=True):
            assert request.args[0].count(document["text"]) == 1
    caplog.clear()
    alone = ours(tasks, backbone, "tiny_one_split", test_only=True)
    assert not caplog.text
    assert (alone.num_samples("val"), alone.num_samples("test")) == (0, COUNT)


def test_a_split_too_small_to_be_divided_is_named(backbone: Any, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", 1)
    with pytest.raises(
        ValueError, match=r"has no (val|test) documents in test after its 1 were divided by tasks\.mine"
    ):
        ours(folder, backbone, "tiny_one_split")


def test_documents_in_both_splits_are_left_out_of_val(
    tasks: Path, backbone: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_tasks(tmp_path / "tasks", 6)
    data = folder / "choices/validation.jsonl"
    data.write_text(data.read_text() + (folder / "choices/test.jsonl").read_text().splitlines()[0] + "\n")
    task = ours(folder, backbone, "tiny_choices")
    assert (task.num_samples("val"), task.num_samples("test")) == (6, 6)
    assert "1 documents of validation are also in test" in caplog.text


def test_the_fingerprint_changes_with_everything_that_scores_depend_on_and_with_no_path(
    tasks: Path, backbone: Any, tmp_path: Path
) -> None:
    marks = [
        ours(tasks, backbone, "tiny_choices", **options).fingerprint
        for options in (
            {},
            {"num_fewshot": 2},
            {"num_fewshot": 2, "seed": 7},
            {"metric": "acc_norm"},
            {"system_instruction": "Answer."},
        )
    ]
    assert len(set(marks)) == len(marks)
    moved = write_tasks(tmp_path / "elsewhere", COUNT)
    assert ours(moved, backbone, "tiny_choices").fingerprint == marks[0]
    answers = ours(moved, backbone, "tiny_answers").fingerprint
    assert ours(tasks, backbone, "tiny_answers").fingerprint == answers
    code = moved / "answers.py"
    code.write_text(code.read_text() + "\n# another version\n")
    assert ours(moved, backbone, "tiny_answers").fingerprint != answers
    data = moved / "choices/test.jsonl"
    data.write_text(data.read_text().replace('"label": 0', '"label": 1', 1))
    assert ours(moved, backbone, "tiny_choices").fingerprint != marks[0]


def test_settings_of_generation_in_the_models_folder_count_and_are_used(
    tasks: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by lm-eval, which loads the folder; a repetition penalty changes the answers and the fingerprint."""
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    state = load_file(folder / "model.safetensors")
    plain = ours(tasks, build(str(folder), state, torch.device("cpu"), torch.float32), "tiny_answers").fingerprint
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "repetition_penalty": 3.0, "min_new_tokens": 4}))
    backbone = build(str(folder), state, torch.device("cpu"), torch.float32)
    task = ours(tasks, backbone, "tiny_answers")
    found = theirs(tasks, folder, monkeypatch, "tiny_answers", limit=8)["samples"]["tiny_answers"]
    assert task.evaluate(backbone, "test", 0, 8).outcomes.tolist() == [
        np.float32(s["letters"]) for s in found if s["filter"] == "whole"
    ]
    assert task.fingerprint != plain


def test_an_empty_answer_to_score_is_named(backbone: Any, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", 4)
    (folder / "empty.yaml").write_text("include: choices.yaml\ntask: empty\ntarget_delimiter: ''\n")
    data = folder / "choices/test.jsonl"
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines[:2], lines[2].replace('"sky"', '""'), lines[3]]))
    with pytest.raises(ValueError, match=r"tasks\.mine: document 2 of test: an answer to score is empty"):
        ours(folder, backbone, "empty").evaluate(backbone, "test", 0, 2)


def test_documents_whose_choices_repeat_are_counted_in_a_warning(
    backbone: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_tasks(tmp_path / "tasks", 4)
    data = folder / "choices/test.jsonl"
    data.write_text(data.read_text().replace('"sky"', '"red"', 3))
    result = ours(folder, backbone, "tiny_choices").evaluate(backbone, "test", 0, 4)
    assert "tasks.mine: in 3 documents of test choices repeat; of equal ones the first is taken" in caplog.text
    assert result.margins is not None and len(result.margins) == 4
