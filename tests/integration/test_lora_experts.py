"""Proves that a LoRA adapter as an expert scores and exports as the whole model that peft merges it into."""

from pathlib import Path

import peft
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import TASKS, Lines
from torch import Tensor

from pipeline.loading.experts import load_checkpoints
from pipeline.spec.load import load_spec
from tasks.embedded import checkpoint_path

SCALING = {"function": "linear", "alpha": {"grid": [0.0, 1.0]}, "beta": "1 - alpha"}
ARMS = {"LiNeS": {"edit": "each_expert", "scaling": SCALING}, "sum": {"merge": "sum", "scaling": {"alpha": "auto"}}}


def write_adapter(lines: Lines, folder: Path, seed: int) -> dict[str, Tensor]:
    """A trained adapter of the embedded base, in peft's own hand; the state that peft merges it into."""
    module = load_checkpoints(load_spec(lines.spec()), torch.device("cpu"))[0].backbone.module
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["attn", "c_fc", "c_proj"])
    model, noise = peft.get_peft_model(module, config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.07 * torch.randn(parameter.shape, generator=noise))
    model.save_pretrained(folder)
    merged = model.merge_and_unload().named_parameters()
    return load_file(checkpoint_path("base")) | {f"visual.{n}": p.detach().contiguous() for n, p in merged}


@pytest.fixture
def both(lines: Lines, tmp_path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Sources of the experts: adapters, and whole models of the same weights."""
    adapters, merged = {}, {}
    for seed, task in enumerate(TASKS):
        adapters[task], merged[task] = str(tmp_path / f"lora-{task}"), str(tmp_path / f"{task}.safetensors")
        save_file(write_adapter(lines, tmp_path / f"lora-{task}", seed), merged[task])
    return adapters, merged


def run(lines: Lines, experts: dict[str, str], out: Path) -> tuple[list[tuple[str, ...]], list[float]]:
    """(arm, group, task, split) and the accuracy of every row of scores, in their order."""
    status, output = lines.run(lines.spec(experts=experts, arms=ARMS), out)
    assert status == 0, output
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    return [(r["arm"], r["group"], r["task"], r["split"]) for r in rows], [r["value"] for r in rows]


def test_adapters_score_and_export_as_the_merged_models(
    lines: Lines, tmp_path: Path, both: tuple[dict[str, str], dict[str, str]]
) -> None:
    adapters, merged = both
    rows, found = run(lines, adapters, tmp_path / "adapters")
    assert len(rows) > 20 and len(set(found)) > 5  # the models differ
    assert (rows, found) == run(lines, merged, tmp_path / "merged")
    exported = {}
    for name in ("adapters", "merged"):
        status, output = lines("export", tmp_path / name, "--arm", "sum", "-o", tmp_path / f"{name}-sum")
        assert status == 0, output
        exported[name] = load_file(tmp_path / f"{name}-sum" / "open_clip_model.safetensors")
    base = load_file(checkpoint_path("base"))
    for name, tensor in exported["merged"].items():
        torch.testing.assert_close(exported["adapters"][name], tensor, rtol=0, atol=1e-6)
    assert any(not torch.equal(tensor, base[name]) for name, tensor in exported["adapters"].items())


def test_lines_merge_says_where_adapters_are_taken(
    lines: Lines, tmp_path: Path, both: tuple[dict[str, str], dict[str, str]]
) -> None:
    words = ("merge", "--base", "embedded/base", "--expert", both[0][TASKS[0]], "-o", tmp_path / "out.safetensors")
    status, output = lines(*words)
    assert status == 2 and "a LoRA adapter, not a whole model: `experts` of a spec take it as it is" in output
