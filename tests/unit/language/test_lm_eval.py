"""Proves that tasks of lm-eval get its own scores on the resident model, and which documents val and test are."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval_tasks import write_tasks
from safetensors.torch import load_file, save_file
from tiny_language import bart_config, t5_config, write_tiny_llama, write_tiny_seq2seq

from tasks.base import NonFiniteOutput, TaskRequest
from tasks.language.causal import CausalBackbone, build
from tasks.language.lm_eval.loading import load
from tasks.language.seq2seq import build as build_seq2seq

lm_eval = pytest.importorskip("lm_eval")
COUNT = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with weights so large that its answers depend on the question."""
    folder = write_tiny_llama(tmp_path_factory.mktemp("llama"), layers=2, hidden=16)
    file = folder / "model.safetensors"
    state = {name: tensor if "norm" in name else 5 * tensor for name, tensor in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def backbone(model: Path) -> CausalBackbone:
    return build(str(model), load_file(model / "model.safetensors"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield write_tasks(tmp_path_factory.mktemp("tasks"), COUNT)
    patch.undo()


def ours(tasks: Path, backbone: Any, name: str, limits: Any = None, test_only: bool = False, **options: Any) -> Any:
    options = {"include_path": str(tasks), **options}
    return load(TaskRequest("mine", f"lm_eval/{name}", limits or {}, options, test_only=test_only), backbone)


def theirs(tasks: Path, model: Path, monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> dict[str, Any]:
    """Return what lm-eval itself finds; it takes the paths of data from the working folder."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tasks)
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # seconds of pip and git
    manager = TaskManager(include_defaults=False, include_path=str(tasks))
    own = HFLM(pretrained=str(model), device="cpu", batch_size=16)
    found = lm_eval.simple_evaluate(own, tasks=[name], task_manager=manager, bootstrap_iters=0, **options)
    assert found is not None
    return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "metric", "filtered"),
    [
        ("tiny_choices", {"num_fewshot": 2}, "acc", "none"),
        ("tiny_choices", {"metric": "acc_norm"}, "acc_norm", "none"),
        ("tiny_answers", {"filter": "word"}, "letters", "word"),
        (
            "tiny_answers",
            {"gen_kwargs": {"do_sample": True, "temperature": 0.9}, "seed": 7, "num_fewshot": 1},
            "letters",
            "whole",
        ),
    ],
)
def test_scores_are_those_of_lm_eval(
    tasks: Path,
    model: Path,
    backbone: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, Any],
    metric: str,
    filtered: str,
) -> None:
    """All documents in one shard, or in two: the values of each document, and their mean, are lm-eval's."""
    task = ours(tasks, backbone, name, **options)
    kept = {key: value for key, value in options.items() if key in ("num_fewshot", "gen_kwargs")}
    if "seed" in options:
        kept |= {f"{kind}_seed": 7 for kind in ("random", "numpy_random", "torch_random", "fewshot_random")}
    found = theirs(tasks, model, monkeypatch, name, **kept)
    samples = [s for s in found["samples"][name] if s["filter"] == filtered]
    values = np.array([s[metric] for s in samples], np.float32)
    whole = task.evaluate(backbone, "test", 0, COUNT)
    np.testing.assert_array_equal(whole.outcomes, values)
    assert whole.stats.mean == pytest.approx(found["results"][name][f"{metric},{filtered}"], abs=1e-7)
    assert 0 < whole.stats.mean < 1
    sampled = (task._task.config.generation_kwargs or {}).get("do_sample", False)
    assert task.together("test") == (0 if sampled else 1)
    if not sampled:
        np.testing.assert_array_equal(task.evaluate_rows(backbone, "test", [7, 2, 4]).outcomes, values[[7, 2, 4]])
    if name == "tiny_choices":
        assert whole.margins is not None
        np.testing.assert_allclose(whole.margins, [margin(s, metric) for s in samples], atol=1e-4)
        assert ((whole.margins < 0) == whole.outcomes).all()
    if "gen_kwargs" not in options:  # a shard has a seed of its own
        halves = [task.evaluate(backbone, "test", start, start + 12).outcomes for start in (0, 12)]
        np.testing.assert_array_equal(np.concatenate(halves), values)


def margin(sample: dict[str, Any], metric: str) -> float:
    """Of lm-eval's own log-likelihoods."""
    lengths = [len(choice) if metric == "acc_norm" else 1 for choice in sample["doc"]["choices"]]
    scores = [ll / length for ((ll, _),), length in zip(sample["resps"], lengths, strict=True)]
    right = scores.pop(sample["doc"]["label"])
    return max(scores) - right


def test_texts_get_the_bits_and_perplexities_of_lm_eval(
    tasks: Path, model: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of documents in several windows; a limit changes outcomes, which are over the mean document's bytes."""
    task = ours(tasks, backbone, "tiny_texts", {"test": 6})
    found = theirs(tasks, model, monkeypatch, "tiny_texts", limit=6)
    results, samples = found["results"]["tiny_texts"], found["samples"]["tiny_texts"]
    parts = [task.evaluate(backbone, "test", start, start + 3) for start in (0, 3)]
    value = (parts[0].stats + parts[1].stats).mean
    sizes = np.array(task.sizes("test"))
    words = sum(s["word_perplexity"][1] for s in samples)
    assert sizes.tolist() == [s["bits_per_byte"][1] for s in samples] and sizes.max() > 5 * sizes.min()
    assert value == pytest.approx(results["bits_per_byte,none"], rel=1e-6)
    assert 2**value == pytest.approx(results["byte_perplexity,none"], rel=1e-5)
    assert 2 ** (value * sizes.sum() / words) == pytest.approx(results["word_perplexity,none"], rel=1e-4)
    bits = np.concatenate([p.outcomes for p in parts]) * sizes.mean()
    np.testing.assert_allclose(bits, [-s["bits_per_byte"][0] / np.log(2) for s in samples], rtol=1e-5)
    assert task.metric == "bits_per_byte" and task.sizes("val") and parts[0].margins is None
    assert task.fingerprint != ours(tasks, backbone, "tiny_texts").fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("config", [t5_config(2, 2), bart_config(2, 2)], ids=["T5", "BART"])
@pytest.mark.parametrize(("name", "metric"), [("tiny_choices", "acc"), ("tiny_answers", "letters")])
def test_encoder_decoders_get_the_scores_of_lm_eval(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any, name: str, metric: str
) -> None:
    folder = write_tiny_seq2seq(tmp_path / "model", config)
    state = load_file(folder / "model.safetensors")
    backbone: Any = build_seq2seq(str(folder), state, torch.device("cpu"), torch.float32)
    outcomes = ours(tasks, backbone, name).evaluate(backbone, "test", 0, COUNT).outcomes
    found = theirs(tasks, folder, monkeypatch, name)["samples"][name]
    values = [s[metric] for s in found if s["filter"] in ("none", "whole")]
    np.testing.assert_array_equal(outcomes.astype(np.float32), np.array(values, np.float32))


def test_output_weights_that_a_file_has_apart_stay_apart(tasks: Path, tmp_path: Path) -> None:
    """lm-eval ties those of T5 1.1, whose configuration is that of T5: its own scores are then of another model."""
    folder = write_tiny_seq2seq(tmp_path / "model", t5_config(2, 2, tied=False))
    state = load_file(folder / "model.safetensors")
    backbone: Any = build_seq2seq(str(folder), state, torch.device("cpu"), torch.float32)
    ours(tasks, backbone, "tiny_choices").evaluate(backbone, "test", 0, 2)
    assert torch.equal(backbone.module.lm_head.weight, state["lm_head.weight"])
    assert torch.equal(backbone.module.shared.weight, state["shared.weight"])
    assert not torch.equal(state["lm_head.weight"], state["shared.weight"])


@pytest.mark.slow
def test_limits_and_divided_documents_give_what_lm_eval_gives_for_the_same_documents(
    tasks: Path, model: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit is lm-eval's `limit`; test of a divided split is its `samples`."""
    limited = ours(tasks, backbone, "tiny_choices", {"test": 10}, num_fewshot=2)
    found = theirs(tasks, model, monkeypatch, "tiny_choices", num_fewshot=2, limit=10)["samples"]["tiny_choices"]
    assert limited.num_samples("test") == 10
    assert limited.evaluate(backbone, "test", 0, 10).outcomes.tolist() == [s["acc"] == 1 for s in found]
    divided = ours(tasks, backbone, "tiny_one_split", val_fraction=0.5)
    rows = [row_of(document) for document in documents(divided, "test")]
    wanted = {"samples": {"tiny_one_split": rows}}
    found = theirs(tasks, model, monkeypatch, "tiny_one_split", **wanted)["samples"]["tiny_one_split"]
    assert divided.evaluate(backbone, "test", 0, len(rows)).outcomes.tolist() == [s["acc"] == 1 for s in found]


def documents(task: Any, split: str) -> list[dict[str, Any]]:
    return list(task._documents.splits[split].documents)


def row_of(document: dict[str, Any]) -> int:
    """Return the row of a document within its split."""
    return int(document["text"].split()[-1]) % COUNT


def test_weights_stay_where_they_are_and_change_the_scores(tasks: Path, backbone: Any) -> None:
    """lm-eval gets the resident module: nothing is copied, and what is edited in place is what is scored."""
    places = {name: p.data_ptr() for name, p in backbone.module.named_parameters()}
    task = ours(tasks, backbone, "tiny_choices")
    before = task.evaluate(backbone, "val", 0, COUNT)
    words = backbone.module.get_parameter("model.embed_tokens.weight")
    words.copy_(words.roll(7, 0))
    after = task.evaluate(backbone, "val", 0, COUNT)
    words.copy_(words.roll(-7, 0))
    again = task.evaluate(backbone, "val", 0, COUNT)
    assert before.outcomes.tolist() != after.outcomes.tolist()
    assert before.outcomes.tolist() == again.outcomes.tolist()
    assert {name: p.data_ptr() for name, p in backbone.module.named_parameters()} == places
    assert backbone.tokenizer.padding_side == "left"


@pytest.mark.parametrize("name", ["tiny_choices", "tiny_answers"])
def test_non_finite_weights_are_a_failure(tasks: Path, backbone: Any, name: str) -> None:
    task = ours(tasks, backbone, name)
    weight = backbone.module.get_parameter("model.norm.weight")
    held = weight.clone()
    weight.fill_(float("nan"))
    try:
        with pytest.raises(NonFiniteOutput, match="non-finite"):
            task.evaluate(backbone, "val", 0, 4)
    finally:
        weight.copy_(held)


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


@pytest.mark.parametrize("name", ["tiny_choices", "tiny_answers"])
def test_prompts_that_do_not_fit_are_cut_as_by_lm_eval_with_one_warning(
    tasks: Path,
    model: Path,
    backbone: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    options = {"num_fewshot": 12}
    task = ours(tasks, backbone, name, {"test": 8}, **options)
    outcomes = [task.evaluate(backbone, "test", 0, 8).outcomes for _ in range(2)][0]
    assert caplog.text.count("tasks.mine: ") == 1
    assert "prompts have more than the 25" in caplog.text and "tokens that fit the model's context" in caplog.text
    found = theirs(tasks, model, monkeypatch, name, limit=8, **options)["samples"][name]
    metric = "acc" if name == "tiny_choices" else "letters"
    values = [s[metric] for s in found if s["filter"] in ("none", "whole")]
    np.testing.assert_array_equal(outcomes.astype(np.float32), np.array(values, np.float32))


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
