"""Proves that the CLIP backbone encodes as open_clip does, knows its depth, and refuses unknown models and options."""

import json
from pathlib import Path

import pytest
import torch
from block_names import read
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_clip import CPU, RESNET, built, config, random_state

from pipeline.checkpoints.blocks import detect
from tasks.vision.clip.architectures import create, pretrained_source
from tasks.vision.clip.backbone import build, layer_map

CONVNEXT = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 32}


def test_features_are_those_of_open_clip(tmp_path: Path) -> None:
    model = config(tmp_path)
    state = random_state(model)
    backbone = built(model, state)
    architecture = create(model, {})
    reference = architecture.model
    reference.load_state_dict(state)
    reference.eval()
    images = [Image.effect_noise((24, 20), 80 + i).convert("RGB") for i in range(3)]
    transform = image_transform_v2(PreprocessCfg(**reference.visual.preprocess_cfg), is_train=False)
    expected = reference.encode_image(torch.stack([transform(i) for i in images]), normalize=True)
    resize = backbone.preprocess.resizer()
    features = backbone.encode(torch.stack([torch.from_numpy(resize(i)) for i in images]))
    assert backbone.preprocess.mean == (0.5, 0.4, 0.3)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    assert torch.equal(
        backbone.encode(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))[0],
        backbone.encode(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))[0],
    )
    tokens = backbone.text.tokenize(["a cat", "dog"])
    torch.testing.assert_close(backbone.text.encode(tokens), reference.encode_text(tokens, normalize=True))


def test_bfloat16_encodes_close_to_float32_and_gives_float32(tmp_path: Path) -> None:
    model = config(tmp_path)
    state = random_state(model)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    low = build(model, state, CPU, torch.bfloat16).encode(images)
    assert low.dtype == torch.float32
    assert (low * built(model, state).encode(images)).sum(dim=1).min() > 0.999


def test_depth_of_a_vision_transformer(tmp_path: Path) -> None:
    model = config(tmp_path)
    layers = built(model, random_state(model)).layer_map
    assert layers.num_blocks == 3
    assert layers.depth("transformer.resblocks.1.mlp.c_fc.weight") == 0.5
    assert layers.depth("conv1.weight") is None and layers.depth("proj") is None


def test_depth_of_a_convnext_runs_over_its_stages(tmp_path: Path) -> None:
    model = config(tmp_path, vision=CONVNEXT)
    backbone = built(model, random_state(model))
    layers = backbone.layer_map
    assert layers.num_blocks == 2 + 2 + 6 + 2
    assert layers.blocks["trunk.stages.2.blocks.1.conv_dw.weight"] == 5
    assert layers.depth("trunk.stages.3.blocks.1.mlp.fc1.weight") == 1.0
    assert layers.depth("trunk.stages.1.downsample.1.weight") is None
    assert backbone.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 16)


def test_a_tower_without_known_blocks_names_its_parameters() -> None:
    with pytest.raises(ValueError, match=r"no residual blocks.* 1 parameters, for example \['layer1.0.conv1.weight'\]"):
        layer_map(["layer1.0.conv1.weight"])
    with pytest.raises(ValueError, match="numbered without a gap"):
        layer_map(["transformer.resblocks.0.x", "transformer.resblocks.2.x"])


@pytest.mark.parametrize("tower", ["ViT", "ConvNeXt", "SigLIP", "EVA-02", "MobileCLIP", "CoCa", "Swin", "RN50"])
def test_a_run_numbers_the_blocks_as_a_merge_of_files_does(tower: str) -> None:
    names = read()[f"open_clip: {tower}"][1]
    merged, _ = detect(names)
    layers = layer_map(name.removeprefix("visual.") for name in names if name.startswith("visual."))
    assert {f"visual.{name}": block for name, block in layers.blocks.items()} == merged.blocks


@pytest.mark.parametrize("family", ["EfficientNet", "MobileNet V3", "RegNet", "Twins", "CaiT", "ResNet"])
def test_a_tower_whose_stages_could_be_taken_for_blocks_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match="no residual blocks of a known layout"):
        layer_map(f"trunk.{name}" for name in read()[f"timm: {family}"][1])


def test_openai_tags_need_quick_gelu_before_anything_is_downloaded() -> None:
    with pytest.raises(
        ValueError, match="computes gelu, but the weights of tag 'openai' need quick_gelu; use.*ViT-B-32-quickgelu"
    ):
        pretrained_source("ViT-B-32", "openai")
    with pytest.raises(ValueError, match="has no tag 'opena'; did you mean 'openai'"):
        pretrained_source("ViT-B-32-quickgelu", "opena")


def test_unknown_models_and_options_suggest_near_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no open_clip architecture or .json file 'ViT-B-33'; did you mean 'ViT-B-32'"):
        create("ViT-B-33", {})
    with pytest.raises(ValueError, match="^backbone.model: embedded/tiny-vitt: .*did you mean 'tiny-vit'"):
        create("embedded/tiny-vitt", {})
    with pytest.raises(ValueError, match="cannot be read as a model configuration"):
        create(str(tmp_path / "absent.json"), {})
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="it has no embed_dim"):
        create(str(tmp_path / "other.json"), {})
    model = config(tmp_path)
    with pytest.raises(ValueError, match=r"backbone\.options\.pretraind: unknown option; did you mean 'pretrained'"):
        built(model, {}, pretraind="openai")
    with pytest.raises(ValueError, match=r"backbone\.options\.preprocess\.size: unknown option"):
        built(model, {}, preprocess={"size": 8})


def test_a_tokenizer_larger_than_the_text_tower_is_refused(tmp_path: Path) -> None:
    path = Path(config(tmp_path))
    values = json.loads(path.read_text())
    values["text_cfg"]["vocab_size"] = 100
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"49408 tokens and the text tower 100: put the vocabulary bpe_100\.txt\.gz"):
        create(str(path), {})


def test_a_resnet_computes_what_open_clip_computes(tmp_path: Path) -> None:
    """As in CLIP's RN50; counters of batches may be missing, as in files of old versions of PyTorch."""
    model = config(tmp_path, vision=RESNET)
    state = random_state(model)
    state["visual.bn1.running_mean"] += 0.3
    reference = create(model, {}).model.eval()
    reference.load_state_dict(state)
    backbone = built(model, {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")})
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = reference.encode_image(backbone.preprocess.normalise(images, torch.float32), normalize=True)
    torch.testing.assert_close(backbone.encode(images), expected)
    found = backbone.select({n: t for n, t in state.items() if n.startswith("visual.")}, "expert.pt")
    assert found.keys() == dict(backbone.module.named_parameters()).keys() and backbone.layer_map.num_blocks == 4
