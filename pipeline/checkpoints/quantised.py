"""Weights that are not numbers by themselves: quantised layouts are refused; float8 is read as bfloat16.

A quantised weight is an integer or a float8 that means something with the scales next to it. Layouts: bitsandbytes
(SCB, absmax, quant_map, quant_state), GPTQ and AWQ (qweight, qzeros, scales, g_idx), float8 (weight_scale,
weight_scale_inv, input_scale), compressed-tensors (weight_packed, weight_scale), HQQ, quanto and MXFP4 (_blocks,
_scales).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tasks.files.json_files import read_object
from tasks.tensors import first_names, region

#: Types of packed weights, in torch's words and those of safetensors. Wider integers may be counters and positions.
_NARROW = re.compile(r"(torch\.)?(u?int8|float[84]_\w+)|[UI]8|F[468]_\w+|F4")
_FLOAT8 = tuple(getattr(torch, name) for name in dir(torch) if name.startswith("float8_"))
#: Last parts of the names of scales, after the module's name and perhaps "weight".
_SCALES = re.compile(
    r"(?:.*[._])?(?:SCB|absmax|quant_map|quant_state\..+|qzeros|scales?|scale_inv|g_idx|zeros?|zero_point|weight_scales)"
)
#: Names of packed weights of any type.
_CODES = re.compile(r"(?:.*\.)?(?:qweight|weight_packed|W_q)")
_HELP = (
    "quantised: dequantise first, for example with transformers: load the model, call dequantize() and "
    "save_pretrained(FOLDER), and give that folder"
)


def check_plain(source: str, kinds: Mapping[str, str], folder: Path | None = None) -> None:
    """Check that no tensor is a quantised weight.

    Args:
        source: where they came from, for errors.
        kinds: name -> type, in torch's words or those of safetensors.
        folder: that may hold a config.json of the model.

    Raises:
        ValueError: if packed weights lie next to scales, or the configuration says that they are quantised; the first
            names are given.
    """
    packed = [name for name, kind in kinds.items() if _NARROW.fullmatch(kind) or _CODES.fullmatch(name)]
    modules = {_module(name) for name in kinds if _SCALES.fullmatch(name)}
    if found := [name for name in packed if _CODES.fullmatch(name) or _module(name) in modules]:
        raise ValueError(f"{source}: {first_names(found)} ({kinds[found[0]].removeprefix('torch.')}): {_HELP}")
    if packed and folder and (method := _method(folder / "config.json")):
        raise ValueError(
            f"{source}: {first_names(packed)}: by quantization_config ({method}) in its config.json {_HELP}"
        )


def numbers(tensor: Tensor) -> Tensor:
    """Return float8 numbers as bfloat16, which holds them exactly and can be computed with; others as they are."""
    return tensor.to(torch.bfloat16) if tensor.dtype in _FLOAT8 else tensor


def numbers_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `numbers` of all tensors; tied ones stay tied."""
    converted = {region(t): t for t in state.values() if t.dtype in _FLOAT8}
    converted = {place: numbers(t) for place, t in converted.items()}
    return {name: converted[region(t)] if t.dtype in _FLOAT8 else t for name, t in state.items()}


def _module(name: str) -> str:
    """Return the module of a weight or a scale: "a.b" for a.b.weight, a.b.weight.absmax, a.b.weight_scale, a.b.SCB."""
    stem = re.sub(r"[._](?:quant_state\..+|nested_absmax|nested_quant_map|quant_map|absmax)$", "", name)
    return stem.rpartition(".")[0]


def _method(config: Path) -> str:
    """Return the method by which a configuration says that its weights are quantised; "" if it says nothing."""
    if not config.is_file():
        return ""
    settings = read_object(config, str(config)).get("quantization_config")
    return str(settings.get("quant_method", "unknown")) if isinstance(settings, dict) else ""
