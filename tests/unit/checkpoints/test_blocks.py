"""Proves that residual blocks are found in the names of every known family, at the right depth, and nowhere else.

The expected values are the tables of docs/reference/families.md; the names are the libraries' own.
"""

import re
from pathlib import Path

import pytest
from block_names import read
from torch import nn

from pipeline.checkpoints.blocks import by_pattern, detect, find_blocks
from pipeline.checkpoints.layouts import LAYOUTS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "families.md"
NAMES = read()


def rows(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of the page."""
    lines = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if re.match(r"\| \w+: ", line)]


RECOGNISED = {row[0]: row[1:] for row in rows("Recognised")}
REFUSED = {row[0]: row[1:] for row in rows("Refused, with the pattern to give")}


def test_the_page_lists_every_family_and_layout() -> None:
    assert sorted([*RECOGNISED, *REFUSED]) == sorted(NAMES)
    stated = {family: row[0].strip("`") for family, row in (RECOGNISED | REFUSED).items()}
    assert stated == {family: of for family, (of, _) in NAMES.items()}
    without = {"open_clip ViT, tower alone", "Hugging Face CLIP, text tower alone"}
    assert {row[1] for row in RECOGNISED.values()} == {layout.description for layout in LAYOUTS} - without


@pytest.mark.parametrize("family", RECOGNISED)
def test_a_family_is_recognised(family: str) -> None:
    _, description, blocks, ends = RECOGNISED[family]
    names = NAMES[family][1]
    layer_map, found = detect(names)
    assert (found, layer_map.num_blocks) == (description, int(blocks))
    first, last = re.findall("`(.*?)`", ends)
    expected = in_order(names, first, last)
    if "features" in first:  # their stems and downsampling have numbers too
        expected = {name: expected[name] for name in layer_map.blocks}
    keys = sorted(set(expected.values()))
    assert layer_map.blocks == {name: keys.index(key) for name, key in expected.items()}
    assert (keys[0], keys[-1]) == (numbers(first), numbers(last))
    for prefix in ("module.", "model.", "_orig_mod.", "module.model."):
        wrapped, again = detect([prefix + name for name in names])
        assert again == description
        assert wrapped.blocks == {prefix + name: index for name, index in layer_map.blocks.items()}


def numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))


def in_order(names: list[str], first: str, last: str) -> dict[str, tuple[int, ...]]:
    """The numbers in the names that begin as the first and the last block do, apart from their numbers."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(first))
    assert re.fullmatch(pattern, last)
    return {name: numbers(match[0]) for name in names if (match := re.match(pattern, name))}


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_is_refused_with_the_patterns_of_its_stacks(family: str) -> None:
    names = NAMES[family][1]
    with pytest.raises(ValueError, match="give --blocks") as error:
        detect(names)
    shown = re.findall(r"'(\S+)' \((\d+) blocks?\)", str(error.value))
    assert shown == re.findall(r"`(\S+)` \((\d+)\)", REFUSED[family][1])
    for pattern, blocks in shown:
        assert by_pattern(names, pattern).num_blocks == int(blocks)


@pytest.mark.parametrize(
    ("family", "depths"),
    [
        (
            "open_clip: ViT",
            {"visual.transformer.resblocks.11.ln_1.weight": 1, "transformer.resblocks.1.ln_1.weight": None},
        ),
        (
            "timm: ConvNeXt",
            {
                "stages.0.blocks.1.gamma": 1 / 17,
                "stages.1.blocks.0.gamma": 3 / 17,
                "stages.1.downsample.0.weight": None,
                "stem.0.weight": None,
            },
        ),
        ("timm: EfficientNet", {"blocks.1.0.conv_pw.weight": 1 / 15, "conv_head.weight": None}),
        ("torchvision: Swin", {"features.3.0.norm1.weight": 2 / 11, "features.0.0.weight": None}),
        ("torchvision: ConvNeXt", {"features.3.0.layer_scale": 3 / 17, "features.2.1.weight": None}),
        ("torchvision: ResNet-18", {"layer1.1.conv1.weight": 1 / 7, "layer2.0.downsample.0.weight": 2 / 7}),
        ("transformers: Segformer, saved", {"segformer.encoder.block.1.0.mlp.dwconv.dwconv.weight": 2 / 7}),
        ("transformers: Whisper, encoder with a classifier", {"encoder.layers.1.fc1.weight": 1 / 3}),
        (
            "transformers: T5",
            {
                "decoder.block.4.layer.1.EncDecAttention.q.weight": 0.8,
                "encoder.block.2.layer.1.DenseReluDense.wo.weight": None,
                "shared.weight": None,
            },
        ),
        ("transformers: CLIP", {"text_model.encoder.layers.2.mlp.fc1.weight": None}),
        ("transformers: Mixtral, saved", {"model.layers.31.block_sparse_moe.experts.3.w1.weight": 1}),
    ],
)
def test_depths(family: str, depths: dict[str, float | None]) -> None:
    names = NAMES[family][1]
    layer_map, _ = detect(names)
    assert set(depths) <= set(names)
    assert {name: layer_map.depth(name) for name in depths} == depths


def test_towers_of_clip_alone() -> None:
    names = [name for name in NAMES["open_clip: ViT"][1] if name.startswith("visual.")]
    layer_map, description = detect([name.removeprefix("visual.") for name in names])
    assert (description, layer_map.num_blocks) == ("open_clip ViT, tower alone", 12)
    names = [name for name in NAMES["transformers: CLIP"][1] if name.startswith("text_model.")]
    layer_map, description = detect(names)
    assert (description, layer_map.num_blocks) == ("Hugging Face CLIP, text tower alone", 12)


def test_a_second_copy_of_a_model_in_the_file_is_refused() -> None:
    names = NAMES["timm: ViT"][1]
    with pytest.raises(ValueError, match=re.escape(r"here 'blocks\.(\d+)\.' (12 blocks) or 'ema\.blocks\.(\d+)\.' (")):
        detect([*names, *(f"ema.{name}" for name in names)])


def test_a_transformer_of_pytorch_is_refused_whole() -> None:
    """Its names begin as those of CLIP's tower do, which once took its attention alone into the blocks."""
    layer = nn.TransformerEncoderLayer(8, 2, 8)
    names = list(nn.ModuleDict({"encoder": nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)}).state_dict())
    with pytest.raises(ValueError, match=re.escape(r"here 'encoder\.layers\.(\d+)\.' (3 blocks)")):
        detect(names)
    assert set(by_pattern(names, r"encoder\.layers\.(\d+)\.").blocks) == set(names)


def test_the_decoder_of_maes_own_program_is_a_second_stack() -> None:
    names = NAMES["timm: ViT"][1]
    decoder = [f"decoder_{name}" for name in names if re.match(r"blocks\.[0-7]\.", name)]
    with pytest.raises(ValueError, match=re.escape(r"or 'decoder_blocks\.(\d+)\.' (8 blocks)")):
        detect([*names, *decoder])


def test_a_network_whose_first_stage_is_named_like_a_resnets_is_refused() -> None:
    """HRNet's names are `layer1.*` as ResNet's, and `stage2.*` to `stage4.*`."""
    names = [n for n in NAMES["torchvision: ResNet-50"][1] if n.startswith("layer1.")]
    branches = [name.replace("layer1.", f"stage{stage}.0.branches.") for stage in (2, 3) for name in names]
    with pytest.raises(ValueError, match=r"or 'layer1\\\.\(\\d\+\)\\\.' \(3 blocks\)"):
        detect([*names, *branches])
    stem = [f"stem.{i}.{part}" for i in (0, 1) for part in "abcdef"]
    assert detect([*NAMES["torchvision: ResNet-50"][1], *stem])[1] == "ResNet"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["conv.weight", "fc.weight"],
            "no known layout matches among 2 names such as conv.weight, fc.weight; give --blocks",
        ),
        (["model.encoder.layers.0.self_attn.k.weight", "model.decoder.layers.0.fc1.weight"], "no known layout matches"),
        (["h.0.ln_1.weight", "decoder.block.0.layer.0.w"], r"several layouts match \(GPT-2, .*, T5, decoder\)"),
        (
            ["h.0.ln_1.weight", "h.2.ln_1.weight"],
            r"the block after 0 is 2, .* numbered without a gap; .* give --blocks 'h\\.\(\\d\+\)\\.' \(2 blocks\)",
        ),
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


def test_numbers_of_a_users_pattern_may_begin_at_1_and_leave_gaps() -> None:
    names = [f"features.{i}.{j}.w" for i in (1, 5, 3, 10) for j in (0, 1)]
    layer_map, found = find_blocks(names, r"features\.(\d+)\.")
    assert found == r"blocks by 'features\\.(\\d+)\\.' (1, 3, 5, 10 are blocks 0 to 3)"
    assert {name: layer_map.blocks[name] for name in names[::2]} == {
        "features.1.0.w": 0, "features.5.0.w": 2, "features.3.0.w": 1, "features.10.0.w": 3
    }  # fmt: skip
    layer_map, found = find_blocks(names, r"features\.(\d+)\.(\d+)\.")
    assert found.endswith("(1.0, 1.1, 3.0, 3.1, 5.0, 5.1, 10.0, 10.1 are blocks 0 to 7)")
    assert layer_map.depth("features.5.1.w") == 5 / 7
    assert find_blocks(["layer0.w", "layer1.w"], r"layer(\d+)\.")[1] == r"blocks by 'layer(\\d+)\\.'"


def test_what_a_users_pattern_leaves_out_of_a_stack_is_shown() -> None:
    names = NAMES["timm: ViT"][1]
    layer_map, found = find_blocks(names, r"blocks\.(\d)\.")
    left = [name for name in names if re.match(r"blocks\.1[01]\.", name)]
    assert layer_map.num_blocks == 10
    assert found == rf"blocks by 'blocks\\.(\\d)\\.', without {len(left)} tensors of the same stack such as {left[0]}"
    assert "without" not in find_blocks(names, r"blocks\.(\d+)\.")[1]
    assert "without" not in find_blocks(NAMES["torchvision: Swin"][1], r"features\.([1357])\.")[1]
    assert "without" not in find_blocks(NAMES["transformers: T5"][1], r"encoder\.block\.(\d+)\.")[1]


def test_numbers_that_begin_at_1_are_shown_for_a_known_family_too() -> None:
    _, found = find_blocks(NAMES["torchvision: ResNet-18"][1], None)
    assert found == "ResNet (1.0, 1.1, 2.0, 2.1, 3.0, 3.1, 4.0, 4.1 are blocks 0 to 7)"
    assert find_blocks(NAMES["timm: ViT"][1], None)[1] == "timm ViT"


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
