"""Proves that the backbone encodes as open_clip does, reads every known layout, and refuses what does not fit."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from block_names import read
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from pipeline.checkpoints.blocks import detect
from tasks.vision.clip.architectures import create, pretrained_source
from tasks.vision.clip.backbone import OpenClipBackbone, build, layer_map

CPU = torch.device("cpu")
VISION = {"image_size": 16, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 7, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
CONVNEXT = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 32}


def config(folder: Path, quick_gelu: bool = False, vision: dict[str, Any] | None = None) -> str:
    path = folder / "model.json"
    values = {"embed_dim": 16, "vision_cfg": vision or VISION, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    path.write_text(json.dumps(values | {"preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.1]}}))
    return str(path)


def random_state(model: str, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {k: v.clone() for k, v in create(model, {}).model.state_dict().items()}


def built(model: str, state: dict[str, Tensor], **options: Any) -> OpenClipBackbone:
    return build(model, state, CPU, torch.float32, options)


def to_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename open_clip's tensors as transformers writes them for CLIPModel."""
    blocks = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    top = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "logit_scale": "logit_scale",
    }
    norms = {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    norms |= {"ln_final": "text_model.final_layer_norm"}
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        stem, _, kind = name.rpartition(".")
        if name in ("visual.proj", "text_projection"):
            out["visual_projection.weight" if "visual" in name else "text_projection.weight"] = tensor.t()
        elif name in top:
            out[top[name]] = tensor
        elif stem in norms:
            out[f"{norms[stem]}.{kind}"] = tensor
        else:
            _, _, rest = name.partition("resblocks.")
            number, _, rest = rest.partition(".")
            block = f"{tower}.encoder.layers.{number}"
            if rest.startswith("attn.in_proj_"):
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    out[f"{block}.self_attn.{letter}_proj.{rest.removeprefix('attn.in_proj_')}"] = part
            else:
                stem = rest.rpartition(".")[0]
                out[f"{block}.{blocks.get(stem, stem.replace('attn', 'self_attn'))}.{kind}"] = tensor
    return out


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


def authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{k}": v for k, v in state.items() if not k.startswith("transformer.")}


def visual(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k.startswith("visual.")}


LAYOUTS = {
    "open_clip": lambda s: s,
    "authors": authors,
    "data parallel": lambda s: {f"module.model.{k}": v for k, v in s.items()},
    "lightning": lambda s: {f"clip.{k}": v for k, v in s.items()},
    "averaged": lambda s: {f"module.{k}": v for k, v in s.items()} | {"n_averaged": torch.tensor(5)},
    "compiled blocks": lambda s: {k.replace(".mlp.", "._orig_mod.mlp."): v for k, v in s.items()},
    "visual only": visual,
    "bare tower": lambda s: {k.removeprefix("visual."): v for k, v in visual(s).items()},
    "CLIPModel": to_hugging_face,
    "with a mask": lambda s: s | {"attn_mask": torch.zeros(7, 7)},
    "CLIPVisionModelWithProjection": lambda s: to_hugging_face(visual(s)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_tensors(tmp_path: Path, layout: str) -> None:
    model = config(tmp_path, quick_gelu=True)
    base = random_state(model)
    expert = base | visual(random_state(model, seed=1))
    backbone = built(model, base)
    found = backbone.select(LAYOUTS[layout](expert), "file")
    assert list(found) == [n for n, _ in backbone.module.named_parameters()]
    assert all(torch.equal(tensor, expert[f"visual.{name}"]) for name, tensor in found.items())


def test_a_base_may_be_a_hugging_face_model(tmp_path: Path) -> None:
    model = config(tmp_path, quick_gelu=True)
    state = random_state(model)
    ours, theirs = built(model, state), built(model, to_hugging_face(state))
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(ours.encode(images), theirs.encode(images))
    assert ours.text.fingerprint == theirs.text.fingerprint


@pytest.mark.parametrize("flat", [False, True])
def test_clip_vision_models_keep_the_bases_projection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, flat: bool
) -> None:
    model = config(tmp_path, quick_gelu=True)
    base = random_state(model)
    expert = to_hugging_face(visual(random_state(model, seed=1)))
    del expert["visual_projection.weight"]
    if flat:  # as transformers 5 writes them
        expert = {k.removeprefix("vision_model."): v for k, v in expert.items()}
    with caplog.at_level(logging.WARNING):
        found = built(model, base).select(expert, "tanganke")
    assert torch.equal(found["proj"], base["visual.proj"]) and "tanganke: has no proj" in caplog.text


def test_hugging_face_models_compute_what_transformers_computes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config=vision | {"image_size": 16, "patch_size": 8},
            text_config=text | {"max_position_embeddings": 7, "vocab_size": 49408},
            projection_dim=16,
        )
    ).eval()
    backbone = built(config(tmp_path, quick_gelu=True), theirs.state_dict())
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    pixels = backbone.preprocess.normalise(images, torch.float32)
    with torch.inference_mode():
        pooled = theirs.visual_projection(theirs.vision_model(pixel_values=pixels).pooler_output)
        tokens = backbone.text.tokenize(["a cat", "dog"])
        words = theirs.text_projection(theirs.text_model(input_ids=tokens).pooler_output)
    torch.testing.assert_close(backbone.encode(images), pooled / pooled.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)
    torch.testing.assert_close(backbone.text.encode(tokens), words / words.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model = config(tmp_path)
    base = random_state(model)
    backbone = built(model, base)
    less = {k: v for k, v in visual(base).items() if k != "visual.ln_post.bias"}
    with pytest.raises(ValueError, match=r"expert\.pt: .*1 missing tensors \(ln_post\.bias\)"):
        backbone.select(less, "expert.pt")
    with pytest.raises(ValueError, match=r"1 unexpected tensors \(classifier\.weight\)"):
        backbone.select(visual(base) | {"visual.classifier.weight": torch.zeros(1)}, "expert.pt")
    with pytest.raises(ValueError, match=r"1 mis-shaped tensors \(proj \[2, 2\], expected \[32, 16\]\)"):
        backbone.select(visual(base) | {"visual.proj": torch.zeros(2, 2)}, "expert.pt")
    with pytest.raises(
        ValueError, match=r"1 unexpected tensors outside the image tower \(classification_head.weight\)"
    ):
        backbone.select(base | {"classification_head.weight": torch.zeros(1)}, "expert.pt")
    with pytest.raises(ValueError, match="image tower only, .* heads need the text tower"):
        built(model, visual(base))
    with pytest.raises(ValueError, match=r"base: .*1 missing tensors \(logit_scale\)"):
        built(model, {k: v for k, v in base.items() if k != "logit_scale"})


def test_a_trained_text_tower_is_refused_and_a_rounded_one_is_not(tmp_path: Path) -> None:
    model = config(tmp_path)
    base = random_state(model)
    backbone = built(model, base)
    with pytest.raises(ValueError, match=r"1 tensors of the text tower differ from the base's \(logit_scale\)"):
        backbone.select(base | {"logit_scale": base["logit_scale"] + 0.5}, "expert.pt")
    backbone.select({k: v.half() for k, v in base.items()}, "expert.pt")


@pytest.mark.parametrize("quick", [False, True])
def test_the_activation_is_checked(tmp_path: Path, quick: bool) -> None:
    model = config(tmp_path, quick_gelu=quick)
    base = random_state(model)
    built(model, base, activation="quick_gelu" if quick else "gelu")
    with pytest.raises(ValueError, match="need (gelu|quick_gelu); use"):
        built(model, base, activation="gelu" if quick else "quick_gelu")
    backbone = built(model, base)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"hidden_act": "gelu"}}))
    for source, needed in ((str(tmp_path / "model.safetensors"), "gelu"), ("hf:a/b", "quick_gelu")):
        if (needed == "quick_gelu") == quick:
            backbone.select(to_hugging_face(base), source)
        else:
            with pytest.raises(ValueError, match=f"need {needed}"):
                backbone.select(to_hugging_face(base), source)


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


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_float8_copy_of_the_text_tower_is_the_same_tower(tmp_path: Path, kind: torch.dtype) -> None:
    """Checkpoints of float8 are read as bfloat16."""
    model = config(tmp_path, quick_gelu=True)
    base = random_state(model)
    backbone = built(model, base)
    expert = {name: tensor.to(kind).to(torch.bfloat16) for name, tensor in base.items()}
    assert torch.equal(backbone.select(expert, "file")["proj"], expert["visual.proj"])
    expert["token_embedding.weight"] = expert["token_embedding.weight"] * 1.03125
    with pytest.raises(ValueError, match="1 tensors of the text tower differ"):
        backbone.select(expert, "file")


RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}


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


def test_the_activation_of_a_resnet_is_its_text_towers(tmp_path: Path) -> None:
    model = config(tmp_path, quick_gelu=True, vision=RESNET)
    built(model, random_state(model), activation="quick_gelu")
    with pytest.raises(ValueError, match="computes quick_gelu, but .* need gelu"):
        built(model, random_state(model), activation="gelu")
