"""Layouts of published CLIP weights, renamed to open_clip's.

- open_clip: `visual.*`, with or without the text tower; with prefixes that all names share (`module.` of data
  parallelism, `model.` of the authors' fine-tuned .pt files, which leave the text transformer out, `clip.`);
- a bare image tower: `conv1.weight`, `transformer.resblocks.*` or `trunk.*`, without `visual.`;
- Hugging Face CLIPModel and CLIPVisionModel, with `vision_model.` in front, or without (transformers 5).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tasks.lora import WeightPart
from tasks.name_matching import without_wrappers
from tasks.tensors import first_names

#: Not weights: masks, position numbers, metadata of OpenAI's archives, and the count of an averaged model.
_IGNORED = re.compile(r"(.*\.)?(attn_mask|position_ids|input_resolution|context_length|vocab_size|n_averaged)")
#: Parts of a CLIP that all names of a file may share: they are no wrappers.
_TOWERS = ("visual", "trunk", "transformer", "text", "vision_model", "text_model", "encoder", "classification_head")
_HF_MARK = re.compile(r"(vision_model|text_model)\.|embeddings\.class_embedding|encoder\.layers\.\d+\.self_attn\.")
_HF_TOWER = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "pre_layrnorm.": "ln_pre.",
    "post_layernorm.": "ln_post.",
    "final_layer_norm.": "ln_final.",
}
_HF_BLOCK = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
}
_HF_TOP = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
#: HF CLIPVisionModel ends before the projection.
OPTIONAL = frozenset({"proj"})


@dataclass(frozen=True)
class ClipState:
    """Weights under open_clip's names.

    Attributes:
        visual: the image tower, without "visual.".
        text: all other tensors.
        hugging_face: whether the names were Hugging Face's.
    """

    visual: dict[str, Tensor]
    text: dict[str, Tensor]
    hugging_face: bool


def to_open_clip(state: Mapping[str, Tensor], source: str) -> ClipState:
    """Rename `state` from its layout; names of no layout are kept, and the caller refuses them.

    Raises:
        ValueError: if an attention block lacks one of its q, k and v projections, or `state` is a LoRA adapter.
    """
    if factor := next((name for name in state if ".lora_A." in name), None):
        raise ValueError(
            f"{source}: holds the factors of a LoRA adapter ({factor}), not a whole model: as an expert, give the "
            "folder that holds adapter_config.json too"
        )
    state = {k: v for k, v in state.items() if not _IGNORED.fullmatch(k)}
    state = {name: state[full] for name, full in without_wrappers(state, _TOWERS).items()}
    if hugging_face := any(_HF_MARK.match(name) for name in state):
        state = _from_hugging_face(state, source)
    if not any(name.startswith("visual.") for name in state):
        return ClipState(dict(state), {}, hugging_face)
    visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    return ClipState(visual, {k: v for k, v in state.items() if not k.startswith("visual.")}, hugging_face)


def weight_parts(modules: Iterable[str], parameters: Collection[str], source: str) -> dict[str, WeightPart]:
    """Find the weights that a LoRA adapter changes in the image tower.

    Names are open_clip's modules, of the whole model or of the tower alone, or Hugging Face's. In a whole model the
    image tower's names begin with `visual.`; all others are the text tower's. peft calls the output projection of an
    nn.MultiheadAttention `attn.base_layer.out_proj`; the factors of `attn` itself change `in_proj_weight`.

    Args:
        modules: names, without peft's prefix.
        parameters: names of the image tower's parameters.
        source: where the adapter came from, for errors.

    Raises:
        ValueError: if a name is not a linear module of the image tower.
    """
    names = list(modules)
    whole = any(name.startswith("visual.") for name in names)
    found = {name: _weight_part(name, parameters) for name in names if not whole or name.startswith("visual.")}
    if strange := [name for name in names if found.get(name) is None]:
        hint = "the text tower must be the base's, as it makes the heads"
        if any(_in_image_tower(name, whole) for name in strange):
            hint = "was it trained on another architecture?"
        raise ValueError(f"{source}: changes {first_names(strange)}: not a linear module of the image tower; {hint}")
    return {name: part for name, part in found.items() if part is not None}


def _in_image_tower(module: str, whole: bool) -> bool:
    """Return whether a name is of an image tower; in a whole model only `visual.*` is."""
    return module.startswith("visual.") if whole else not module.startswith("text_model.")


def _weight_part(module: str, parameters: Collection[str]) -> WeightPart | None:
    if module.startswith("text_model."):
        return None
    if match := re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj", module):
        parts = [WeightPart(f"{_tower_name(match[1] + '.')}attn.in_proj_weight", "qkv".index(match[2]), 3)]
    else:
        hugging_face = re.match(r"(vision_model\.)?encoder\.layers\.", module)
        name = _tower_name(f"{module}.") if hugging_face else f"{module.replace('.base_layer.', '.')}."
        parts = [WeightPart(f"{name}weight"), WeightPart(f"{name}in_proj_weight")]
    parts = [replace(part, parameter=part.parameter.removeprefix("visual.")) for part in parts]
    return next((part for part in parts if part.parameter in parameters), None)


def _from_hugging_face(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name in _HF_TOP:
            # nn.Linear stores (out, in); open_clip multiplies from the right by (in, out).
            renamed[_HF_TOP[name]] = tensor.t().contiguous()
        elif match := re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            block, letter, kind = match.groups()
            packed.setdefault(f"{_tower_name(block + '.')}attn.in_proj_{kind}", {})[letter] = tensor
        else:
            renamed[_tower_name(name)] = tensor
    for name, parts in packed.items():
        if set(parts) != set("qkv"):
            raise ValueError(f"{source}: {name}: needs q_proj, k_proj and v_proj, got {sorted(parts)}")
        renamed[name] = torch.cat([parts[letter] for letter in "qkv"])
    return renamed


def _tower_name(name: str) -> str:
    """Return open_clip's name of a tensor (or block: "...encoder.layers.3.") of a Hugging Face tower."""
    tower = "" if name.startswith("text_model.") or name == "logit_scale" else "visual."
    name = name.removeprefix("text_model.").removeprefix("vision_model.")
    if match := re.match(r"encoder\.layers\.(\d+)\.", name):
        return f"{tower}transformer.resblocks.{match[1]}.{_replaced(name[match.end() :], _HF_BLOCK)}"
    return tower + _replaced(name, _HF_TOWER)


def _replaced(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
