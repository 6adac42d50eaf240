"""Proves that quantised checkpoints are refused by name in every layout, and plain float8 is read as its numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from merge_command import merge_states_of, output, save
from safetensors.torch import save_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.lazy import open_checkpoint

LINEAR = "model.layers.0.mlp.up_proj"
BYTES = torch.arange(16, dtype=torch.uint8).reshape(4, 4)
SCALE = torch.ones(4)
#: Tensors of one linear module in each layout.
LAYOUTS: dict[str, dict[str, Tensor]] = {
    "bitsandbytes int8": {"weight": BYTES.to(torch.int8), "SCB": SCALE},
    "bitsandbytes nf4": {"weight": BYTES, "weight.absmax": SCALE, "weight.quant_map": SCALE},
    "nested nf4": {"weight": BYTES, "weight.nested_absmax": SCALE, "weight.quant_state.bitsandbytes__nf4": BYTES},
    "GPTQ": {"qweight": BYTES.int(), "qzeros": BYTES.int(), "scales": SCALE.half(), "g_idx": torch.arange(4).int()},
    "AWQ": {"qweight": BYTES.int(), "qzeros": BYTES.int(), "scales": SCALE.half()},
    "fp8": {"weight": SCALE.to(torch.float8_e4m3fn), "weight_scale": SCALE[:1], "input_scale": SCALE[:1]},
    "fp8 in blocks": {"weight": SCALE.to(torch.float8_e4m3fn), "weight_scale_inv": SCALE[:1]},
    "compressed-tensors": {"weight_packed": BYTES.int(), "weight_scale": SCALE, "weight_shape": torch.tensor([4, 4])},
    "HQQ": {"W_q": BYTES, "scale": SCALE, "zero": SCALE},
    "quanto": {"weight._data": BYTES.to(torch.int8), "weight._scale": SCALE},
    "MXFP4": {"gate_up_proj_blocks": BYTES, "gate_up_proj_scales": BYTES[0]},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("read", [read_checkpoint, open_checkpoint])
def test_layouts_are_refused_by_name(tmp_path: Path, read: Callable[..., object], layout: str, suffix: str) -> None:
    tensors = {f"{LINEAR}.{name}": tensor for name, tensor in LAYOUTS[layout].items()}
    source = save({"model.norm.weight": SCALE, **tensors}, tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=rf"{source}: {LINEAR}\.\w+.*: quantised: dequantise first, for example"):
        read(source)


def test_weights_and_scales_in_different_shards(tmp_path: Path) -> None:
    shards = {"model-1.safetensors": {f"{LINEAR}.weight": BYTES}, "model-2.safetensors": {f"{LINEAR}.SCB": SCALE}}
    for name, state in shards.items():
        save_file(state, tmp_path / name)
    names = {name: shard for shard, state in shards.items() for name in state}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for read in (read_checkpoint, open_checkpoint):
        with pytest.raises(ValueError, match="quantised: dequantise first"):
            read(str(tmp_path))


def test_a_configuration_that_names_quantisation(tmp_path: Path) -> None:
    source = save({f"{LINEAR}.weight": BYTES}, tmp_path / "model.safetensors")
    assert read_checkpoint(source).state
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "new"}}))
    for read, place in ((read_checkpoint, source), (open_checkpoint, str(tmp_path))):
        with pytest.raises(
            ValueError, match=r"up_proj.weight: by quantization_config \(new\) .* quantised: dequantise"
        ):
            read(place)


def test_scales_and_counters_of_other_models_are_no_quantisation(tmp_path: Path) -> None:
    """OpenAI's CLIP has counters next to logit_scale; BatchNorm counts; GPT-2 keeps a mask of bytes."""
    state = {
        "logit_scale": torch.tensor(1.0),
        "vocab_size": torch.tensor(49408),
        "bn.weight": SCALE,
        "bn.num_batches_tracked": torch.tensor(3),
        "h.0.attn.bias": torch.ones(1, 1, 2, 2, dtype=torch.uint8),
        "embeddings.position_ids": torch.arange(4),
        "x.weight": SCALE,
        "x.weight_scale": SCALE,
    }
    assert read_checkpoint(save(state, tmp_path / "a.pt")).state.keys() == state.keys()


KINDS = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_float8_is_read_as_bfloat16_exactly(tmp_path: Path, kind: str, suffix: str) -> None:
    every = torch.arange(256).to(torch.uint8).view(getattr(torch, kind))
    finite = every[every.float().isfinite()]
    source = save({"w": finite}, tmp_path / f"a{suffix}")
    for read in (read_checkpoint, open_checkpoint):
        found = read(source)
        assert found.state["w"].dtype == torch.bfloat16
        assert torch.equal(found.state["w"].float(), finite.float())
    with pytest.raises(ValueError, match="NaN or infinite values in w"):
        open_checkpoint(save({"w": every}, tmp_path / f"b{suffix}"))


def test_a_merge_of_float8_is_that_of_its_numbers(tmp_path: Path) -> None:
    def model(*values: float) -> dict[str, Tensor]:
        return {f"h.{i}.w": torch.tensor([v, -v]).to(torch.float8_e4m3fn) for i, v in enumerate(values)}

    options = ("--method=average", "--scaling=constant")
    assert merge_states_of(tmp_path, model(1, 1), model(3, 5), model(2, 1), options=options)[0] == 0
    assert {n: (t.dtype, t.tolist()) for n, t in output(tmp_path).items()} == {
        "h.0.w": (torch.bfloat16, [2.5, -2.5]),
        "h.1.w": (torch.bfloat16, [3.0, -3.0]),
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BYTES, BYTES + 1),
        (BYTES.to(torch.int8), BYTES.to(torch.int8) + 1),
        (BYTES.float(), BYTES),
        (BYTES, BYTES.float()),
    ],
)
def test_integers_that_differ_from_the_bases_are_refused_by_name(tmp_path: Path, ours: Tensor, theirs: Tensor) -> None:
    base = {"h.0.w": SCALE, "h.1.w": SCALE, "h.0.proj": ours}
    expert = {"h.0.w": 2 * SCALE, "h.1.w": SCALE, "h.0.proj": theirs}
    status, printed = merge_states_of(tmp_path, base, expert)
    assert status == 2 and "0.pt: h.0.proj" in printed and "quantised: dequantise first" in printed
    assert not (tmp_path / "out.safetensors").exists()
    status, printed = merge_states_of(tmp_path, base, expert, options=("--exclude=proj",))
    assert status == 0 and "excluded, so they stay the base's: 1 tensors" in printed
    assert torch.equal(output(tmp_path)["h.0.proj"], ours)


def test_counters_and_positions_may_differ_and_are_the_bases(tmp_path: Path) -> None:
    base = {"h.0.w": SCALE, "h.1.w": SCALE, "num_batches_tracked": torch.tensor(3), "position_ids": torch.arange(4)}
    expert = {**base, "h.0.w": 2 * SCALE, "num_batches_tracked": torch.tensor(9), "position_ids": torch.arange(1, 5)}
    assert merge_states_of(tmp_path, base, expert)[0] == 0
    found = output(tmp_path)
    assert found["num_batches_tracked"] == 3 and found["position_ids"].tolist() == [0, 1, 2, 3]
