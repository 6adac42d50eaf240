"""Proves that the memory of computations without values is that of the same computations with values."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import bart_config, row, t5_config, write_tiny_llama, write_tiny_seq2seq
from torch import nn

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.learning.live_bytes import LiveBytes
from pipeline.sizing.forward_bytes import peak_bytes
from tasks.base import TaskRequest
from tasks.loading import load_task
from tasks.registry import BACKBONES


def test_results_count_as_long_as_they_live_and_views_never() -> None:
    with LiveBytes() as live:
        first = torch.empty(1000, device="meta")
        second = first.exp().view(10, 100)
        assert live.now == 8000
        del first
        assert live.now == 4000
        total = second.sum()
    assert (live.peak, live.now, total.numel()) == (8000, 4004, 1)


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_a_pass_without_values_takes_the_bytes_of_one_with_values(kind: str) -> None:
    def peak(device: str) -> int | None:
        if kind == "linear":
            layers = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)).to(device)
            return peak_bytes(lambda: layers(torch.empty(8, 64, device=device)))
        query = torch.empty(2, 4, 100, 16, device=device)
        return peak_bytes(lambda: nn.functional.scaled_dot_product_attention(query, query, query))

    assert peak("meta") == peak("cpu")


def test_attention_makes_no_matrix_of_all_pairs() -> None:
    query = torch.empty(1, 1, 1000, 16, device="meta")
    assert peak_bytes(lambda: nn.functional.scaled_dot_product_attention(query, query, query)) == 1000 * 16 * 4


def test_what_needs_values_before_any_memory_is_not_known() -> None:
    empty = torch.empty(3, device="meta")
    assert peak_bytes(lambda: empty.tolist()) is None


@pytest.mark.parametrize("metric", ["accuracy", "squad"])
@pytest.mark.parametrize("model", ["causal", "t5", "bart"])
def test_text_tasks_run_the_whole_model_without_values(model: str, metric: str, tmp_path: Path) -> None:
    """Masks, padding and checks of logits ask for values that there are not."""
    if model == "causal":
        write_tiny_llama(tmp_path, layers=2)
    else:
        write_tiny_seq2seq(tmp_path, t5_config(2, 2) if model == "t5" else bart_config(2, 2))
    some = [{"prompt": row(i)["source"][: 40 + i], "choices": ["a", "data"], "answers": ["x"]} for i in range(6)]
    lines = "".join(json.dumps({**r, "label": i % 2}) + "\n" for i, r in enumerate(some))
    for split in ("val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    options: dict[str, Any] = {"metric": metric, **({"max_new_tokens": 2} if metric == "squad" else {})}

    def peak(device: str) -> int | None:
        state = read_checkpoint(str(tmp_path)).state
        build = BACKBONES["causal" if model == "causal" else "seq2seq"]
        backbone = build(str(tmp_path), state, torch.device(device), torch.float32)
        task = load_task(TaskRequest("mine", str(tmp_path), {}, options), backbone)
        return peak_bytes(lambda: task.evaluate(backbone, "val", 0, 6))

    assert peak("meta") == pytest.approx(peak("cpu"), rel=0.05)
