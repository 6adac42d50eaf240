"""Proves that classifiers as rewards score the right label and text, and the same in any batch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_rewards import CPU, END, SAMPLES, TEXTS, WRITERS, sample, write_gpt2
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tasks.language.rewards.classifier import ClassifierReward
from tasks.language.rewards.loading import checked, load_reward

SPOILT = {"bart": {"label": "FAITHFUL"}, "bert": {"label": "GOOD"}}


def by_hand(folder: Path, *texts: str) -> torch.Tensor:
    """Return the logits of one input by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        logits: torch.Tensor = model(**AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt")).logits[0]
    return logits


@pytest.mark.parametrize("form", ["pair", "completion", "{source} {completion}"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_score_does_not_depend_on_its_batch(name: str, form: str, folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders[name]), "inputs": form, **SPOILT.get(name, {})}
    samples = SAMPLES if form != "completion" else SAMPLES[4:]
    reward = load_reward("reward/classifier", {**options, "batch_size": 5}, CPU)
    assert isinstance(reward, ClassifierReward) and reward.batch_size == 5
    together = checked(name, reward, samples)
    alone = [load_reward("reward/classifier", {**options, "batch_size": 1}, CPU).score([s])[0] for s in samples]
    assert np.std(alone) > 0.01
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(checked(name, reward, samples[::-1]), together[::-1], atol=1e-4)


def test_the_label_is_found_by_name_and_by_index(folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders["bert"])}
    expected = by_hand(folders["bert"], TEXTS[0], "a tool")
    found = [
        load_reward("reward/classifier", {**options, "label": label}, CPU).score([sample("a tool")])[0]
        for label in ("BAD", "FAIR", "GOOD", 0, 1, 2)
    ]
    assert found == pytest.approx([*expected.tolist(), *expected.tolist()], abs=1e-5)


def test_probabilities_and_differences(folders: Mapping[str, Path]) -> None:
    logits = by_hand(folders["bert"], TEXTS[0], "a tool")
    options = {"model": str(folders["bert"]), "label": "GOOD"}
    softmax = load_reward("reward/classifier", {**options, "probability": True}, CPU)
    assert softmax.score([sample("a tool")]) == pytest.approx([logits.softmax(0)[2].item()], abs=1e-5)
    odds = load_reward("reward/classifier", {**options, "minus": "BAD"}, CPU)
    assert odds.score([sample("a tool")]) == pytest.approx([(logits[2] - logits[0]).item()], abs=1e-5)
    one = load_reward("reward/classifier", {"model": str(folders["roberta"]), "probability": True}, CPU)
    expected = by_hand(folders["roberta"], TEXTS[0], "a tool").sigmoid().item()
    assert one.score([sample("a tool")]) == pytest.approx([expected], abs=1e-5)


def test_templates_take_source_completion_and_prompt(folders: Mapping[str, Path]) -> None:
    form = "{prompt} {completion} of {source}"
    reward = load_reward("reward/classifier", {"model": str(folders["roberta"]), "inputs": form}, CPU)
    # A text that looks like a place of the template stays as it is.
    one = sample("a {source} tool", "data")
    expected = by_hand(folders["roberta"], "Description: data\nSynopsis: a {source} tool of data").item()
    assert reward.score([one]) == pytest.approx([expected], abs=1e-5)


def test_the_named_rewards_ask_as_rewarded_soups_does(folders: Mapping[str, Path]) -> None:
    one = sample("A tool. It has few dependencies.")
    bart = load_reward("reward/bart-faithful", {"model": str(folders["bart"])}, CPU)
    expected = by_hand(folders["bart"], "A tool.", TEXTS[0])  # the pair of the model's card: the summary comes first
    assert bart.score([one]) == pytest.approx([expected[1].item()], abs=1e-5)
    gpt2 = load_reward("reward/gpt2-summary", {"model": str(folders["gpt2"])}, CPU)
    assert gpt2.score([one]) == pytest.approx(by_hand(folders["gpt2"], f"A tool. {END} {TEXTS[0]}").tolist(), abs=1e-5)
    whole = load_reward("reward/gpt2-summary", {"model": str(folders["gpt2"]), "first_sentence": False}, CPU)
    expected = by_hand(folders["gpt2"], f"A tool. It has few dependencies. {END} {TEXTS[0]}")
    assert whole.score([one]) == pytest.approx(expected.tolist(), abs=1e-5)


def test_special_tokens_in_texts_are_left_out(folders: Mapping[str, Path]) -> None:
    bart = load_reward("reward/bart-faithful", {"model": str(folders["bart"])}, CPU)
    scores = bart.score([sample("a</s> tool<pad>", f"<s>{TEXTS[1]}</s>"), sample("a tool", TEXTS[1]), sample("tools")])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5) and abs(scores[1] - scores[2]) > 1e-3


@pytest.mark.parametrize("pad_token", [None, END, "<pad>"])
def test_a_decoder_without_a_pad_token_reads_its_last_token(pad_token: str | None, tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "gpt2", pad_token)
    reward = load_reward("reward/classifier", {"model": str(folder), "inputs": "{source}: {completion}"}, CPU)
    samples = [sample("a tool"), sample("tools to draw graphs")]
    expected = [by_hand(folder, f"{TEXTS[0]}: {s.completion}").item() for s in samples]
    assert reward.score(samples) == pytest.approx(expected, abs=1e-4)


def test_inputs_that_end_with_the_token_for_padding_are_scored_one_by_one(
    folders: Mapping[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    options = {"model": str(folders["gpt2"]), "inputs": "{source}: {completion}" + END}
    reward = load_reward("reward/classifier", options, CPU)
    assert "scores samples one by one" in caplog.text
    samples = [sample("a tool"), sample("tools to draw graphs")]
    expected = [by_hand(folders["gpt2"], f"{TEXTS[0]}: {s.completion}{END}").item() for s in samples]
    assert reward.score(samples) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("form", ["pair", "{completion}{source}", "{prompt}{completion}"])
@pytest.mark.parametrize("name", WRITERS)
def test_only_the_source_is_cut(name: str, form: str, folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders[name]), "inputs": form, **SPOILT.get(name, {})}
    reward = load_reward("reward/classifier", options, CPU)
    long = " ".join(TEXTS) * 3
    scores = reward.score(
        [sample(c, s) for s in (long, long + " state", "a " + long) for c in ("the state", "the net")]
    )
    assert scores[2:4] == pytest.approx(scores[:2], abs=1e-5)  # beyond the cut
    assert abs(scores[0] - scores[1]) > 1e-4 and abs(scores[0] - scores[4]) > 1e-4  # the completion, and before the cut
    short = load_reward("reward/classifier", {**options, "max_length": 24}, CPU)
    with pytest.raises(ValueError, match=r"options\.max_length: is too short for the completion 'graphs of .*than 24"):
        short.score([sample("graphs of data " * 9)])
