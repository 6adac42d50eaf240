"""Proves that checkpoints read entry by entry are those read as a whole, and that a merge holds no expert in memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.lazy import Difference, StoredTensors, open_checkpoint
from pipeline.checkpoints.merge import merge_states
from pipeline.merging import parameter_pieces
from pipeline.merging.task_vectors import NamedTensors, task_vector
from pipeline.recipe import Recipe
from tasks.base import LayerMap

ORACLE = Path(__file__).parents[2] / "data" / "oracle"


@pytest.mark.parametrize("most", [100, 1 << 18])
def test_entries_fingerprint_and_task_vector_are_the_same(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(parameter_pieces, "PIECE", most)
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
    state, _ = merge_states(base, [expert], Recipe.make("single", "linear", 0, 0.5), layer_map)
    assert [state[n].tolist() for n in base.state] == [[1.0] * 3, [2.0] * 3]
    assert base.state["h.1.w"].tolist() == [1.0] * 3 and expert.state["h.1.w"].tolist() == [3.0] * 3
    _, equal = merge_states(base, [expert], Recipe.make("single", "equal_norm:linear", 0, 0.5), layer_map)
    assert equal.alpha == pytest.approx(0.5 / 2**0.5) and equal.lambdas.all == (equal.alpha,) * 3


@pytest.mark.slow
def test_memory_of_a_merge_is_less_than_one_model(tmp_path: Path) -> None:
    """Two experts of 48 MB, whose largest parameter is 2 MB, on one core in a process of its own."""
    state = {f"h.{i}.w": torch.randn(1024, 512) for i in range(24)}
    for name in ("base", "0", "1"):
        save_file({n: t + 0.01 * torch.rand(512) for n, t in state.items()}, tmp_path / f"{name}.safetensors")
    code = """
import os, sys
from pathlib import Path
import torch
from pipeline.checkpoints.merge_files import merge_files
from pipeline.checkpoints.prepared_merge import MergeSources
from pipeline.recipe import Recipe
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
folder = Path(sys.argv[1])
def memory(what):
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])
sources = MergeSources(f"{folder}/base.safetensors", [f"{folder}/{i}.safetensors" for i in range(2)])
for method, alpha in (("breadcrumbs", 0.4), ("sum", "auto")):
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the peak, becomes VmRSS
    before = memory("VmRSS")
    merge_files(sources, Recipe.make(method, "linear", alpha, 0.5), folder / "merged.safetensors")
    print((memory("VmHWM") - before) // 1024)
"""
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system at once
    command, root = [sys.executable, "-c", code, str(tmp_path)], Path(__file__).parents[3]
    grown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=env).stdout
    assert (tmp_path / "merged.safetensors").stat().st_size > 48 << 20
    assert all(2 <= int(megabytes) <= 36 for megabytes in grown.split()), grown
