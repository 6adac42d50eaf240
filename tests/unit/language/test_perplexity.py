"""Proves that bits per byte are those of a loop over single tokens, and which documents are read."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_language import row, t5_config, write_tiny_llama, write_tiny_seq2seq

from pipeline.checkpoints.checkpoint import read_checkpoint
from tasks.base import Backbone, Sized, Task, TaskRequest
from tasks.language.text.rolling import Windows
from tasks.loading import load_task
from tasks.registry import BACKBONES

TEXTS = [row(i)["source"][: 30 + 11 * (i * 5 % 9)] + " naïve" * (i % 2) for i in range(9)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return built("causal", write_tiny_llama(tmp_path_factory.mktemp("llama"), layers=2))


def built(family: str, folder: Path) -> Backbone:
    state = read_checkpoint(str(folder)).state
    return BACKBONES[family](str(folder), state, torch.device("cpu"), torch.float32)


def task(source: Path, backbone: Backbone, test_only: bool = False, **options: Any) -> Task:
    limits = options.pop("limits", {})
    request = TaskRequest("wiki", str(source), limits, {"metric": "bits_per_byte", **options}, test_only=test_only)
    return load_task(request, backbone)


def folder_of(place: Path, texts: list[str]) -> Path:
    place.mkdir()
    for split, some in (("val", texts), ("test", texts[:2])):
        (place / f"{split}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in some), encoding="utf-8")
    return place


def bits(backbone: Any, text: str, window: int, stride: int) -> float:
    """Each token by itself: after the tokens that the window before its end holds."""
    tokens = [backbone.tokenizer.bos_token_id, *backbone.tokenizer(text, add_special_tokens=False)["input_ids"]]
    count, total = len(tokens) - 1, 0.0
    for i in range(count):
        last = window if i < window else min(count, window + ((i - window) // stride + 1) * stride)
        context = tokens[max(0, last - window) : i + 1]
        logits = backbone.module(torch.tensor([context])).logits[0, -1].double()
        total -= float(logits.log_softmax(-1)[tokens[i + 1]]) / math.log(2)
    return total


@pytest.mark.parametrize(("window", "stride"), [(256, 256), (12, 12), (12, 5)])
@torch.inference_mode()
def test_bits_are_those_of_single_tokens(backbone: Backbone, window: int, stride: int, tmp_path: Path) -> None:
    wiki = task(folder_of(tmp_path / "t", TEXTS), backbone, window=window, stride=stride, batch_size=2)
    assert (wiki.num_samples("val"), wiki.num_samples("test"), wiki.metric) == (9, 2, "bits_per_byte")
    found = wiki.evaluate(backbone, "val", 0, 9)
    expected = {len(t.encode()): bits(backbone, t, window, stride) for t in TEXTS}
    every = sum(len(t.encode()) for t in TEXTS)
    assert isinstance(wiki, Sized) and sum(wiki.sizes("val")) == every and len(expected) == 9
    assert found.stats.mean == pytest.approx(sum(expected.values()) / every, rel=1e-6)
    np.testing.assert_allclose(found.outcomes * every / 9, [expected[size] for size in wiki.sizes("val")], rtol=1e-5)


def test_scores_have_the_same_bits_in_every_shard(backbone: Backbone, tmp_path: Path) -> None:
    wiki = task(folder_of(tmp_path / "t", TEXTS), backbone, window=32, batch_size=2)
    whole = wiki.evaluate(backbone, "val", 0, 9)
    parts = [wiki.evaluate(backbone, "val", i, min(i + 2, 9)) for i in range(0, 9, 2)]
    assert np.concatenate([p.outcomes for p in parts]).tobytes() == whole.outcomes.tobytes()
    other = task(tmp_path / "t", backbone, window=32, stride=8, batch_size=2)
    assert other.fingerprint != wiki.fingerprint
    assert other.evaluate(backbone, "val", 0, 9).stats.mean != whole.stats.mean


def test_windows_are_those_of_lm_eval() -> None:
    utils = pytest.importorskip("lm_eval.utils")
    draw = random.Random(0)
    for _ in range(200):
        count, longest = draw.randint(0, 60), draw.randint(1, 12)
        stride = draw.randint(1, longest)
        tokens = list(range(1, count + 1))
        theirs = utils.get_rolling_token_windows(tokens, 0, longest, longest - stride + 1)
        ours = [(list(read), list(new)) for read, new in Windows(longest, stride).cut((0, *tokens))]
        assert ours == [(read, new) for read, new in theirs]


def test_a_file_is_divided_by_content(backbone: Backbone, tmp_path: Path) -> None:
    text = tmp_path / "wiki.txt"
    text.write_text("\n\n \n".join([*TEXTS, TEXTS[0]]) + "\n\n\n", encoding="utf-8")
    rows = tmp_path / "wiki.parquet"
    pq.write_table(pa.table({"page": [*TEXTS, " ", TEXTS[0]]}), rows)
    first, second = task(text, backbone, val_fraction=0.6), task(rows, backbone, val_fraction=0.6, text="page")
    assert first.fingerprint == second.fingerprint
    counts = first.num_samples("val"), first.num_samples("test")
    assert sum(counts) == 10 and min(counts) > 1
    assert isinstance(first, Sized)
    sides = [sorted(first.sizes(split)).count(len(TEXTS[0].encode())) for split in ("val", "test")]
    assert sorted(sides) == [0, 2]  # copies are on one side
    whole = task(text, backbone, test_only=True)
    assert (whole.num_samples("val"), whole.num_samples("test")) == (0, 10)
    cut = task(text, backbone, val_fraction=0.6, limits={"test": 1})
    assert cut.num_samples("test") == 1 and cut.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 300}, r"tasks\.wiki\.options\.window: must be at most the model's context, 256, got 300"),
        ({"window": 8, "stride": 9}, r"options\.stride: must be at most the window, 8 tokens, got 9"),
        ({"stride": 0}, r"options\.stride: must be a whole number, at least 1, got 0"),
        ({"val_fraction": 1}, r"options\.val_fraction: must be in \(0, 1\), got 1"),
        ({"strid": 4}, r"options\.strid: unknown option; did you mean 'stride'"),
        ({"text": "page"}, r"val\.jsonl: row 1: page: must be a text, got None; known: text"),
    ],
)
def test_a_wrong_option_is_named(backbone: Backbone, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "t", TEXTS[:2])
    with pytest.raises(ValueError, match=message):
        task(source, backbone, **options)


def test_a_wrong_source_is_named(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "wiki.txt").write_bytes(b"na\xefve")
    with pytest.raises(ValueError, match=r"wiki\.txt: must be UTF-8"):
        task(tmp_path / "wiki.txt", backbone)
    with pytest.raises(ValueError, match=r"wiki\.tx' is no file of type .*, and no folder .*did you mean 'wiki\.txt'"):
        task(tmp_path / "wiki.tx", backbone)
    (tmp_path / "few.txt").write_text("one document")
    with pytest.raises(
        ValueError, match=r"few\.txt: of its 1 documents none is left for (val|test) by options\.val_fr"
    ):
        task(tmp_path / "few.txt", backbone)
    (tmp_path / "wiki.csv").write_text("text\n")
    with pytest.raises(ValueError, match=r"wiki\.csv: must be a folder, or a file of type \.jsonl, \.parquet, \.txt"):
        task(tmp_path / "wiki.csv", backbone)
    with pytest.raises(ValueError, match=r"is a file of documents: set tasks\.wiki\.options\.metric: bits_per_byte"):
        load_task(TaskRequest("wiki", str(tmp_path / "wiki.txt")), backbone)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    seq2seq = built("seq2seq", write_tiny_seq2seq(tmp_path / "t5", t5_config(2, 2)))
    with pytest.raises(ValueError, match="bits_per_byte needs a backbone of family causal, got seq2seq"):
        task(folder_of(tmp_path / "t", TEXTS[:2]), seq2seq)
