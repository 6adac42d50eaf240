"""Proves that checkpoints read entry by entry are those read as a whole, and that a merge holds no expert in memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.checkpoints import lazy as streaming
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.lazy import Difference, StoredTensors, open_checkpoint
from pipeline.checkpoints.merge import merge_states
from pipeline.merging.task_vectors import NamedTensors, task_vector
from pipeline.recipe import Recipe
from tasks.base import LayerMap

ORACLE = Path(__file__).parents[2] / "data" / "oracle"


@pytest.mark.parametrize("most", [0, 1 << 23])
def test_entries_fingerprint_and_task_vector_are_the_same(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(streaming, "MAX_MAPPED", most)
    base = read_checkpoint(str(ORACLE / "base.safetensors"))
    source = str(ORACLE / "finetuned_0.safetensors")
    whole, opened = read_checkpoint(source), open_checkpoint(source)
    assert isinstance(opened.state, StoredTensors)
    assert opened.fingerprint == whole.fingerprint and list(opened.state) == list(whole.state)
    difference = Difference(base.state, opened.state)
    expected = task_vector(NamedTensors("base", base.state), NamedTensors(source, whole.state))
    assert list(difference) == list(expected) and len(difference) == len(expected)
    assert all(torch.equal(difference[name], expected[name]) for name in expected)
    assert "no-such-name" not in difference and "no-such-name" not in opened.state


def test_other_formats_are_read_as_a_whole_and_faults_are_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    assert torch.equal(open_checkpoint(str(tmp_path / "a.pt")).state["w"], torch.ones(2))
    (tmp_path / "b.safetensors").write_bytes(b"12345")
    with pytest.raises(ValueError, match="b.safetensors: truncated or not a safetensors file"):
        open_checkpoint(str(tmp_path / "b.safetensors"))
    save_file({"w": torch.tensor([1.0, torch.nan])}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="c.safetensors: NaN or infinite values in w"):
        open_checkpoint(str(tmp_path / "c.safetensors"))
    save_file({}, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="d.safetensors: holds no tensors"):
        open_checkpoint(str(tmp_path / "d.safetensors"))


def test_a_merge_leaves_base_and_experts_as_they_are(tmp_path: Path) -> None:
    def state(value: float) -> dict[str, Tensor]:
        return {"h.0.w": torch.full((3,), value), "h.1.w": torch.full((3,), value)}

    save_file(state(1.0), tmp_path / "base.safetensors")
    save_file(state(3.0), tmp_path / "expert.safetensors")
    base, expert = (open_checkpoint(str(tmp_path / f"{n}.safetensors")) for n in ("base", "expert"))
    layer_map = LayerMap.from_pattern(base.state, r"h\.(\d+)\.")
    merged = merge_states(base, [expert], Recipe.make("single", "linear", 0, 0.5), layer_map)
    assert [merged.state[n].tolist() for n in base.state] == [[1.0] * 3, [2.0] * 3]
    assert base.state["h.1.w"].tolist() == [1.0] * 3 and expert.state["h.1.w"].tolist() == [3.0] * 3
    equal = merge_states(base, [expert], Recipe.make("single", "equal_norm:linear", 0, 0.5), layer_map)
    assert equal.alpha == pytest.approx(0.5 / 2**0.5) and equal.lambdas.all == (equal.alpha,) * 3


@pytest.mark.slow
def test_memory_of_a_merge_is_the_results(tmp_path: Path) -> None:
    """Eight experts of 24 MB, whose largest parameter is 2 MB, in a process of its own that has the base already."""
    state = {f"h.{i}.w": torch.randn(1024, 512) for i in range(12)}
    save_file(state, tmp_path / "base.safetensors")
    for i in range(8):
        save_file({n: t + 0.01 * torch.randn(t.shape) for n, t in state.items()}, tmp_path / f"{i}.safetensors")
    code = """
import sys
from pathlib import Path
import torch
from benchmarks.combine import peak_of_anonymous_memory
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.merge import merge_states
from pipeline.checkpoints.lazy import open_checkpoint
from pipeline.recipe import Recipe
from tasks.base import LayerMap
torch.set_num_threads(1)
folder = Path(sys.argv[1])
base = read_checkpoint(str(folder / "base.safetensors"))
layer_map = LayerMap.from_pattern(base.state, r"h\\.(\\d+)\\.")
for method in ("sum", "ties"):
    with peak_of_anonymous_memory() as peak:
        experts = [open_checkpoint(str(folder / f"{i}.safetensors")) for i in range(8)]
        merge_states(base, experts, Recipe.make(method, "linear", "auto", 0.5), layer_map)
        print(peak() // 2**20)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system at once
    root = Path(__file__).parents[3]
    grown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=env).stdout
    plain, ties = map(int, grown.split())
    assert 24 <= plain <= 24 + 24
    assert 24 + 8 * 2 <= ties <= 24 + 8 * 2 + 24
