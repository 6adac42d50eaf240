"""Proves that tasks of lm-eval get its own scores on the resident model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval_scores import COUNT, documents, ours, row_of, theirs
from safetensors.torch import load_file
from tiny_language import bart_config, t5_config, write_tiny_seq2seq

from tasks.base import NonFiniteOutput
from tasks.language.seq2seq import build as build_seq2seq

pytest.importorskip("lm_eval")


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
