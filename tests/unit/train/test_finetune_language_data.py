"""Proves that a language model is trained on rows that are not scored, in batches of like length, or not at all."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import text_row, write_rows, write_text_finetune
from text_finetune import WHOLE, jobs
from tiny_language import bart_config, tiny_tokenizer, write_tiny_seq2seq

from pipeline.spec.load import SpecError
from pipeline.train.finetune.batches import EpochBatches
from pipeline.train.finetune.preparation import load_base, load_training_task, prepare
from pipeline.train.finetune.spec import FinetuneSettings, load_finetune_spec

pytestmark = pytest.mark.training


def test_texts_of_similar_length_share_a_batch_and_epochs_differ() -> None:
    lengths = [(7 * i) % 101 for i in range(64)]
    batches = EpochBatches(64, FinetuneSettings(lr=1, epochs=2, batch_size=8), lengths)
    plain = EpochBatches(64, FinetuneSettings(lr=1, epochs=2, batch_size=8))

    def epoch(of: EpochBatches, first: int) -> list[list[int]]:
        return [of.rows(step).tolist() for step in range(first, first + 8)]

    def padding(of: EpochBatches) -> int:
        return sum(max(lengths[i] for i in rows) * 8 - sum(lengths[i] for i in rows) for rows in epoch(of, 0))

    assert sorted(sum(epoch(batches, 0), [])) == list(range(64)) == sorted(sum(epoch(batches, 8), []))
    assert epoch(batches, 0) != epoch(batches, 8)
    assert epoch(batches, 0) == epoch(EpochBatches(64, FinetuneSettings(lr=1, epochs=1, batch_size=8), lengths), 0)
    assert padding(batches) * 4 < padding(plain)


@pytest.mark.parametrize("family", ["causal", "encoder"])
def test_scored_rows_are_left_out_of_training_and_cut_texts_counted(
    tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [text_row(i, family) for i in range(20)]
    write_rows(tmp_path / "kinds" / "train.jsonl", [*rows, text_row(103, family), text_row(206, family)])
    option = "max_tokens" if family == "encoder" else "max_prompt_tokens"
    tokenizer = tiny_tokenizer()
    longer = sum(len(tokenizer(r.get("text") or r["prompt"])["input_ids"]) > 40 for r in rows)
    assert 0 < longer < 20
    tasks = {"kinds": {"source": "./kinds", "options": {option: 40}}}
    # Row 206 is a row of test beyond the limit: it must not be learned either.
    spec = load_finetune_spec(write_text_finetune(tmp_path, family, tasks=tasks, limits={"test": 3}))
    with caplog.at_level(logging.WARNING):
        task = load_training_task(spec, "kinds", load_base(spec, torch.device("cpu")).backbone)
    assert [task.num_samples(s) for s in ("train", "val", "test")] == [20, 8, 3]
    assert "2 training rows are in val or test too" in caplog.text
    assert f"{longer} of 20 training" in caplog.text


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("causal", {"training": {**WHOLE, "augment": "jitter"}}, "training.augment: changes images"),
        (
            "causal",
            {"training": {**WHOLE, "head": "own"}},
            "training.head: is for backbone.family: encoder",
        ),
        (
            "encoder",
            {"methods": {"lora": {}}, "training": {**WHOLE, "head": "own"}},
            "an adapter holds no head, so own needs another method than lora",
        ),
        (
            "open_clip",
            {"training": {**WHOLE, "forward_size": 8}},
            "training.forward_size: is for texts, got 8 of full/kinds for open_clip",
        ),
        ("encoder", {"training": {**WHOLE, "head": "owned"}}, "training.head: must be 'frozen' or 'own'"),
    ],
)
def test_a_setting_that_the_family_lacks_is_refused(
    tmp_path: Path, family: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        load_finetune_spec(write_text_finetune(tmp_path, family, **changes))


def test_an_input_that_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="backbone.family: unknown backbone 'casual': did you mean 'causal'"):
        jobs(tmp_path, "causal", backbone={"family": "casual", "model": "base"})
    with pytest.raises(ValueError, match=r"lora/kinds: params.rank: must be in \[1, 16\].*_proj.weight, got 17"):
        jobs(tmp_path, "causal", methods={"lora": {"params": {"rank": 17}}})
    long = {**text_row(0, "causal"), "choices": ["short", "tool " * 300], "label": "tool " * 300}
    write_rows(tmp_path / "kinds" / "train.jsonl", [long])
    with pytest.raises(
        ValueError, match=r"tasks.kinds: .*train.jsonl: row 1: its prompt has \d+ tokens, .* for the longest choice"
    ):
        jobs(tmp_path, "causal")
    write_rows(tmp_path / "kinds" / "train.jsonl", [text_row(100, "causal")])
    with pytest.raises(ValueError, match=r"tasks.kinds: .*kinds: has no training samples"):
        jobs(tmp_path, "causal")
    (tmp_path / "kinds" / "train.jsonl").rename(tmp_path / "kinds" / "training.jsonl")
    spec = load_finetune_spec(tmp_path / "finetune.yaml")
    with pytest.raises(ValueError, match=r"tasks.kinds: .*has no train.jsonl or train.parquet; .*'training.jsonl'"):
        prepare(spec, tmp_path / "out", "cpu", lambda *_: None)


def test_a_target_that_is_longer_than_the_decoder_takes_is_named(tmp_path: Path) -> None:
    write_tiny_seq2seq(tmp_path / "base", bart_config(2, 2))
    row = {"prompt": "a", "choices": ["short", "tool " * 80], "label": 1}
    write_rows(tmp_path / "kinds" / "train.jsonl", [row])
    short = [{"prompt": "What is it?", "choices": ["a", "b"], "label": 0}]
    for split in ("val", "test"):
        write_rows(tmp_path / "kinds" / f"{split}.jsonl", short)
    with pytest.raises(ValueError, match=r"row 1: its target has \d+ tokens, and the model takes at most 64"):
        jobs(tmp_path, "seq2seq")
