"""Proves that the memory of computations without values is that of the same computations with values."""

import pytest
import torch
from torch import nn

from pipeline.sizing.live_bytes import LiveBytes, peak_bytes


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
