"""Proves that wrong options, files, data and metrics of tasks of lm-eval are errors that name the cause."""

import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval_scores import ours
from lm_eval_tasks import write_tasks

pytest.importorskip("lm_eval")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny_choice", {}, r"lm_eval/tiny_choice: unknown task of lm-eval 'tiny_choice'; did you mean 'tiny_choices'"),
        ("tiny_group", {}, r"'tiny_group' is a group of lm-eval, not one task: .*\(tiny_choices, tiny_one_split\)"),
        ("tiny_choices", {"metric": "acc_nrm"}, r"options\.metric: the task has no metric 'acc_nrm'; .*'acc_norm'"),
        ("tiny_choices", {"metric": "brier_score"}, r"options\.metric: must be a mean .* got 'brier_score'; known"),
        ("tiny_answers", {"filter": "words"}, r"options\.filter: the task has no filter 'words'; did you mean 'word'"),
        (
            "tiny_texts",
            {"metric": "word_perplexity"},
            r"must be bits_per_byte: word_perplexity is 2 \*\* \(value \* by",
        ),
        ("tiny_choices", {"shots": 5}, r"tasks\.mine\.options\.shots: unknown option"),
        ("tiny_choices", {"num_fewshot": -1}, r"options\.num_fewshot: must be a whole number, at least 0, got -1"),
        ("tiny_choices", {"num_fewshot": 25}, r"options\.num_fewshot: must be at most 24, .* got 25"),
        ("tiny_choices", {"seed": [1, 2]}, r"options\.seed: must be one number or four"),
        ("tiny_choices", {"gen_kwargs": {"max_gen_toks": 3}}, r"options\.gen_kwargs: the task generates nothing"),
        ("tiny_answers", {"gen_kwargs": {"max_gen_toks": 256}}, r"max_gen_toks: must be less than .* context, 256"),
        ("tiny_choices", {"apply_chat_template": True}, r"options\.apply_chat_template: .* has no chat template"),
        ("tiny_choices", {"include_path": "/nowhere"}, r"options\.include_path: must be a folder .* got '/nowhere'"),
    ],
)
def test_wrong_options_are_named(tasks: Path, backbone: Any, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours(tasks, backbone, name, **options)


def test_data_that_is_not_at_hand_is_named_with_what_to_do(tasks: Path, backbone: Any, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", 4)
    (folder / "choices/test.jsonl").unlink()
    with pytest.raises(ValueError, match=r"lm_eval/tiny_choices: its data set json is not at hand .*test\.jsonl.*put"):
        ours(folder, backbone, "tiny_choices")
    (folder / "far.yaml").write_text(
        "include: choices.yaml\ntask: far\ndataset_path: no-owner/no-data\ndataset_kwargs: {}\n"
    )
    with pytest.raises(ValueError, match=r"lm_eval/far: its data set no-owner/no-data is not at hand .*include_path"):
        ours(folder, backbone, "far")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: bad\n  a: [\n", r"ScannerError: .*bad\.yaml\", line 2"),
        ("task: bad\ninclude: nowhere.yaml\n", r"lm-eval cannot read its YAML file: .*nowhere\.yaml"),
        ("include: answers.yaml\ntask: bad\nprocess_results: !function answers.none\n", r"has no function 'none'"),
        ("include: choices.yaml\ntask: bad\nshots: 1\n", r"unexpected keyword argument 'shots'"),
        ("include: choices.yaml\ntask: bad\ntest_split: tset\n", r"'tset': a split, a field or a metric of this name"),
        ("include: choices.yaml\ntask: bad\nvalidation_split: valid\n", r"'valid': a split, a field or a metric"),
        ("include: choices.yaml\ntask: bad\ndoc_to_text: '{{nothing}}'\n", r"'nothing' is undefined"),
        ("include: choices.yaml\ntask: bad\ndoc_to_image: text\n", r"its documents hold images or sound"),
        (
            "include: texts.yaml\ntask: bad\nmetric_list: [{metric: word_perplexity}]\n",
            r"its metrics are word_perplexity: add bits_per_byte to its metric_list",
        ),
        ("include: texts.yaml\ntask: bad\ndoc_to_target: label\n", "cannot count the bytes of its documents"),
        ("include: choices.yaml\ntask: bad\nmetric_list: [{metric: mcc}]\n", r"its metrics are mcc: none is a mean"),
        ("include: broken.yaml\ntask: bad\n", r"its data set json cannot be read: .*JSON parse error"),
    ],
)
def test_wrong_files_of_tasks_are_errors_that_name_the_cause(
    backbone: Any, tmp_path: Path, text: str, message: str
) -> None:
    folder = write_tasks(tmp_path / "tasks", 4)
    (folder / "bad.jsonl").write_text("{nope\n")
    (folder / "broken.yaml").write_text(
        "include: one_split.yaml\ntask: broken\ndataset_kwargs: {data_files: {test: bad.jsonl}}\n"
    )
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"^lm_eval/bad: .*{message}"):
        ours(folder, backbone, "bad")


def test_code_that_the_model_writes_runs_only_if_the_spec_asks(tasks: Path, backbone: Any, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", 4)
    file = folder / "answers.yaml"
    file.write_text(file.read_text() + "unsafe_code: true\n")
    ran = tmp_path / "ran"
    code = folder / "answers.py"
    code.write_text(f"open({str(ran)!r}, 'w')\n" + code.read_text())
    with pytest.raises(ValueError, match=r"runs code that the model writes.*confirm_run_unsafe_code: true"):
        ours(folder, backbone, "tiny_answers", val_fraction=0.5)
    assert not ran.exists()
    assert ours(folder, backbone, "tiny_answers", confirm_run_unsafe_code=True).num_samples("test") == 4


def test_a_metric_beyond_one_is_refused(tasks: Path, backbone: Any, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", 4)
    code = folder / "answers.py"
    code.write_text('def process_results(doc, results):\n    return {"letters": 34.5}\n')
    task = ours(folder, backbone, "tiny_answers")
    with pytest.raises(ValueError, match=r"tasks\.mine: metric letters: must be in \[0, 1\] .* got 34\.5"):
        task.evaluate(backbone, "val", 0, 2)
    code.write_text("def process_results(doc, results):\n    return {}\n")
    with pytest.raises(ValueError, match=r"metric letters: must be in \[0, 1\] .* got None"):
        ours(folder, backbone, "tiny_answers").evaluate(backbone, "val", 0, 2)


def test_other_models_and_a_missing_package_are_named(
    tasks: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Images:
        family = "open_clip"

    with pytest.raises(ValueError, match="needs a backbone of family causal or seq2seq, got open_clip"):
        ours(tasks, Images(), "tiny_choices")
    monkeypatch.setattr("tasks.language.lm_eval.loading.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"lm-eval is not installed: pip install"):
        ours(tasks, backbone, "tiny_choices")


def test_lm_evals_own_tasks_are_found_by_name(tasks: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the package itself: a task, a group and a tag; its data set is on the hub, which tests do not reach."""
    monkeypatch.setattr("tasks.language.lm_eval.assembly.hub_silence", lambda: "no network in tests")
    with pytest.raises(ValueError, match=r"lm_eval/arc_easy: its data set allenai/ai2_arc ARC-Easy is not at hand"):
        ours(tasks, backbone, "arc_easy")
    with pytest.raises(ValueError, match=r"'mmlu' is a group of lm-eval, not one task"):
        ours(tasks, backbone, "mmlu")
    with pytest.raises(ValueError, match=r"'ai2_arc' is a tag of lm-eval, not one task: .*\(arc_easy\)"):
        ours(tasks, backbone, "ai2_arc")
    with pytest.raises(ValueError, match=r"runs code that the model writes"):
        ours(tasks, backbone, "humaneval")
    assert "lm_eval.tasks.humaneval.utils" not in sys.modules
