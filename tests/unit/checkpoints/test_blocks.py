"""Proves that residual blocks are found in the names of every known family, at the right depth, and nowhere else."""

import re

import pytest

from pipeline.checkpoints.blocks import LAYOUTS, by_pattern, detect

#: A few names of a family (real ones, three blocks of each), -> the depth of some of them.
FAMILIES = {
    "open_clip ViT, image tower": (
        [
            "visual.conv1.weight",
            "transformer.resblocks.{i}.ln_1.weight",
            "visual.transformer.resblocks.{i}.ln_1.weight",
        ],
        {"visual.transformer.resblocks.1.ln_1.weight": 0.5, "transformer.resblocks.1.ln_1.weight": None},
    ),
    "open_clip ViT, tower alone": (
        ["conv1.weight", "proj", "transformer.resblocks.{i}.mlp.c_fc.bias"],
        {"transformer.resblocks.2.mlp.c_fc.bias": 1.0, "proj": None},
    ),
    "open_clip ConvNeXt, image tower": (
        [
            "visual.trunk.stem.0.weight",
            "visual.trunk.stages.{i}.downsample.0.weight",
            "visual.trunk.stages.{i}.blocks.0.gamma",
            "visual.trunk.stages.2.blocks.{i}.gamma",
            "transformer.resblocks.{i}.ln_1.weight",
        ],
        {
            "visual.trunk.stages.1.blocks.0.gamma": 0.25,
            "visual.trunk.stages.2.blocks.1.gamma": 0.75,
            "visual.trunk.stages.2.downsample.0.weight": None,
        },
    ),
    "timm ViT in open_clip, image tower": (["visual.trunk.blocks.{i}.norm1.weight"], {}),
    "timm ConvNeXt": (
        ["stem.0.weight", "stages.{i}.blocks.0.gamma", "stages.0.blocks.{i}.gamma"],
        {"stages.0.blocks.1.gamma": 0.25, "stages.1.blocks.0.gamma": 0.75},
    ),
    "timm ViT": (["patch_embed.proj.weight", "blocks.{i}.norm1.weight"], {"patch_embed.proj.weight": None}),
    "Hugging Face CLIP, image tower": (
        ["vision_model.encoder.layers.{i}.mlp.fc1.weight", "text_model.encoder.layers.{i}.mlp.fc1.weight"],
        {"vision_model.encoder.layers.2.mlp.fc1.weight": 1.0, "text_model.encoder.layers.2.mlp.fc1.weight": None},
    ),
    "Hugging Face CLIP, text tower alone": (["text_model.encoder.layers.{i}.mlp.fc1.weight"], {}),
    "Hugging Face CLIP, tower alone": (["pre_layrnorm.weight", "encoder.layers.{i}.self_attn.k_proj.bias"], {}),
    "Hugging Face ConvNeXt": (
        ["convnext.encoder.stages.{i}.layers.0.dwconv.weight", "convnext.encoder.stages.2.layers.{i}.dwconv.weight"],
        {
            "convnext.encoder.stages.2.layers.2.dwconv.weight": 1.0,
            "convnext.encoder.stages.1.layers.0.dwconv.weight": 0.25,
        },
    ),
    "Hugging Face BERT or ViT": (
        ["bert.embeddings.LayerNorm.weight", "bert.encoder.layer.{i}.output.dense.weight"],
        {"bert.encoder.layer.1.output.dense.weight": 0.5, "bert.embeddings.LayerNorm.weight": None},
    ),
    "Hugging Face ViT": (["vit.layers.{i}.attention.q_proj.weight"], {}),
    "Llama, Mistral or Qwen": (
        ["model.embed_tokens.weight", "model.layers.{i}.self_attn.q_proj.weight", "lm_head.weight"],
        {"model.layers.1.self_attn.q_proj.weight": 0.5, "lm_head.weight": None},
    ),
    "GPT-2": (["transformer.wte.weight", "transformer.h.{i}.ln_1.weight"], {"transformer.h.2.ln_1.weight": 1.0}),
    "T5, decoder": (
        [
            "shared.weight",
            "encoder.block.{i}.layer.1.DenseReluDense.wo.weight",
            "decoder.block.{i}.layer.1.DenseReluDense.wo.weight",
        ],
        {
            "decoder.block.2.layer.1.DenseReluDense.wo.weight": 1.0,
            "encoder.block.2.layer.1.DenseReluDense.wo.weight": None,
            "shared.weight": None,
        },
    ),
}


def expand(names: list[str]) -> list[str]:
    return list(dict.fromkeys(name.format(i=i) for name in names for i in range(3)))


def test_every_layout_has_an_example() -> None:
    assert list(FAMILIES) == [layout.description for layout in LAYOUTS]


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod."])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_found_behind_any_wrapper(family: str, prefix: str) -> None:
    names, depths = FAMILIES[family]
    layer_map, description = detect([prefix + name for name in expand(names)])
    assert description == family
    assert {name: layer_map.depth(prefix + name) for name in depths} == depths


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["conv.weight", "fc.weight"],
            "no known layout matches among 2 names such as conv.weight, fc.weight; give --blocks",
        ),
        (["model.encoder.layers.0.self_attn.k.weight", "model.decoder.layers.0.fc1.weight"], "no known layout matches"),
        (["h.0.ln_1.weight", "decoder.block.0.w"], r"several layouts match \(GPT-2, T5, decoder\)"),
        (["h.0.ln_1.weight", "h.2.ln_1.weight"], "numbered without a gap"),
    ],
)
def test_what_cannot_be_told_is_an_error(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detect(names)


def test_a_pattern_of_the_users_own_matches_at_the_start_or_behind_wrappers() -> None:
    names = [f"model.layer{i}.0.conv.weight" for i in range(3)] + ["model.fc.weight", "aux.layer9.weight"]
    layer_map = by_pattern(names, r"layer(\d+)\.")
    assert layer_map == by_pattern(names, r"model\.layer(\d+)\.")
    assert layer_map.num_blocks == 3
    assert layer_map.depth("model.layer1.0.conv.weight") == 0.5
    assert layer_map.depth("aux.layer9.weight") is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("layer(", "is not a regular expression"),
        ("layer", "must have a group"),
        (r"(\w+)\.", r"must match digits, got ('layer0',)"),
        (r"block(\d+)", "matches none of 3 parameters"),
    ],
)
def test_patterns_that_cannot_work(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        by_pattern(["layer0.w", "layer1.w", "head.w"], pattern)
