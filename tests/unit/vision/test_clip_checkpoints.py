"""Proves that checkpoints of every known layout give the same tensors, and that what does not fit is refused."""

import json
import logging
from pathlib import Path

import pytest
import torch
from tiny_clip import RESNET, built, config, random_state
from torch import Tensor


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


def test_the_activation_of_a_resnet_is_its_text_towers(tmp_path: Path) -> None:
    model = config(tmp_path, quick_gelu=True, vision=RESNET)
    built(model, random_state(model), activation="quick_gelu")
    with pytest.raises(ValueError, match="computes quick_gelu, but .* need gelu"):
        built(model, random_state(model), activation="gelu")
