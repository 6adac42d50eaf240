"""Proves that a classifier is known by its content, and that wrong options and folders are named and run no code."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from tiny_rewards import CONTEXT, CPU, SAMPLES, write_bert, write_roberta
from transformers import AutoModelForSequenceClassification

from tasks.language.rewards.loading import load_reward, reward_fingerprint


def test_a_longer_input_than_the_model_takes_is_refused(folders: Mapping[str, Path]) -> None:
    for name in ("roberta", "bert"):
        options = {"model": str(folders[name]), "label": 0, "max_length": CONTEXT + 1}
        with pytest.raises(ValueError, match=rf"options\.max_length: must be at most the model's {CONTEXT} tokens"):
            load_reward("reward/classifier", options, CPU)


LABELS = r"BAD \(0\), FAIR \(1\), GOOD \(2\)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, rf"options\.label: is required: the model has the labels {LABELS}"),
        ({"label": "GOD"}, rf"options\.label: no label 'GOD'; did you mean 'GOOD'\?; all: {LABELS}"),
        ({"label": 3}, rf"options\.label: must be one of {LABELS}, got 3"),
        ({"label": 1, "minus": "X"}, r"options\.minus: no label 'X'"),
        ({"label": 1, "minus": 0, "probability": True}, r"options\.probability: must be left out if minus is given"),
        ({"labl": 1}, r"options\.labl: unknown option; did you mean 'label'"),
        ({"inputs": "pairs"}, r"options\.inputs: must be pair, completion, or a template with .*, got 'pairs'"),
        ({"batch_size": 0}, r"options\.batch_size: input should be greater than or equal to 1, got 0"),
        ({"probability": "yes"}, r"options\.probability: input should be a valid boolean, got 'yes'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str, folders: Mapping[str, Path]) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        load_reward("reward/classifier", {"model": str(folders["bert"]), **options}, CPU)


def test_what_is_no_classifier_is_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"encoder: is not a BertForSequenceClassification: 2 tensors are missing.*class"
    ):
        load_reward("reward/classifier", {"model": str(folders["encoder"]), "label": 0}, CPU)
    with pytest.raises(ValueError, match=r"^options\.model: is required"):
        load_reward("reward/classifier", {}, CPU)
    with pytest.raises(ValueError, match=r"^options\.model: .*absent: no such folder"):
        reward_fingerprint("reward/classifier", {"model": str(tmp_path / "absent")})
    damaged = Path(shutil.copytree(folders["roberta"], tmp_path / "damaged")) / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"^options\.model: .*damaged: its weights are damaged"):
        load_reward("reward/classifier", {"model": str(damaged.parent)}, CPU)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match=r"^options\.model: .*: cannot be read: Unrecognized .*Classification\.$"):
        load_reward("reward/classifier", {"model": str(tmp_path)}, CPU)


def as_pickle(folder: Path, state: object) -> None:
    """Save a folder's weights in the format before safetensors."""
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("evil-was-here",)


def test_weights_as_a_pickle_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_roberta(tmp_path / "roberta")
    expected = load_reward("reward/classifier", {"model": str(folder)}, CPU).score(SAMPLES)
    state = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    as_pickle(folder, state)
    assert load_reward("reward/classifier", {"model": str(folder)}, CPU).score(SAMPLES) == pytest.approx(expected)
    torch.save({**state, "evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"^options\.model: .*its \.bin holds more than tensors"):
        load_reward("reward/classifier", {"model": str(folder)}, CPU)
    assert not (tmp_path / "evil-was-here").exists()


def test_fingerprints_are_of_content(tmp_path: Path) -> None:
    one, other = write_bert(tmp_path / "a"), write_bert(tmp_path / "b", seed=1)
    copy = Path(shutil.copytree(one, tmp_path / "copy"))
    options: dict[str, object] = {"model": str(one), "label": "GOOD"}
    expected = reward_fingerprint("reward/classifier", options)
    assert load_reward("reward/classifier", options, CPU).fingerprint == expected
    same = [{"model": str(copy)}, {"batch_size": 2}, {"inputs": "pair"}]
    assert {reward_fingerprint("reward/classifier", {**options, **more}) for more in same} == {expected}
    (copy / "README.md").write_text("says nothing of scores")
    assert reward_fingerprint("reward/classifier", {**options, "model": str(copy)}) == expected
    differs = [{"model": str(other)}, {"label": "BAD"}, {"inputs": "completion"}, {"max_length": 9}, {"minus": 0}]
    found = {reward_fingerprint("reward/classifier", {**options, **more}) for more in differs}
    assert len(found | {expected}) == 6
    tokenizer = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(tokenizer.replace('"lowercase": true', '"lowercase": false'))
    assert reward_fingerprint("reward/classifier", {**options, "model": str(copy)}) != expected
