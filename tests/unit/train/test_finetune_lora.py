"""Proves that LoRA trains W + scale B A, that W never changes, and that peft reads the written files."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from pipeline.train.lora import LoraTuning, check_rank, targets
from tasks.embedded import checkpoint_path
from tasks.vision.clip.backbone import OpenClipBackbone, build


@pytest.fixture
def backbone() -> OpenClipBackbone:
    return build("embedded/tiny-vit", load_file(checkpoint_path("base")), torch.device("cpu"), torch.float32)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def moved(backbone: OpenClipBackbone, rank: int = 3, scale: float = 1.0) -> LoraTuning:
    """Return factors as after some training: B is no longer zero."""
    tuning = LoraTuning(backbone, rank, scale, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, factor in tuning.trained.items():
            if "lora_B" in name:
                factor.copy_(0.1 * torch.randn(factor.shape, generator=generator))
    return tuning


def test_every_linear_layer_of_every_block_is_a_target(backbone: OpenClipBackbone) -> None:
    found = {t.weight for t in targets(backbone.module, backbone.layer_map)}
    layers = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert found == {f"transformer.resblocks.{b}.{layer}" for b in range(8) for layer in layers}


def test_training_starts_at_the_base(backbone: OpenClipBackbone, images: torch.Tensor) -> None:
    tuning = LoraTuning(backbone, 4, 1.0, seed=0)
    assert torch.equal(backbone.embed(images, tuning.weights()), backbone.embed(images))
    again, other = (LoraTuning(backbone, 4, 1.0, seed=s) for s in (0, 1))
    name = "transformer.resblocks.0.mlp.c_fc.lora_A.weight"
    assert torch.equal(tuning.trained[name], again.trained[name])
    assert not torch.equal(tuning.trained[name], other.trained[name])


def test_peft_computes_the_same_with_the_files(
    backbone: OpenClipBackbone, images: torch.Tensor, tmp_path: Path
) -> None:
    tuning = moved(backbone, scale=2.0)
    ours = backbone.embed(images, tuning.weights()).detach()
    assert not torch.allclose(ours, backbone.embed(images), atol=1e-2)
    tuning.write(tmp_path, torch.float32)
    model = peft.PeftModel.from_pretrained(backbone.module, str(tmp_path))
    torch.testing.assert_close(backbone.encode(images), ours, rtol=0, atol=2e-6)
    names = set(peft.get_peft_model_state_dict(model))
    assert names == set(load_file(tmp_path / "adapter_model.safetensors"))


def test_gradients_are_those_of_the_product(backbone: OpenClipBackbone, images: torch.Tensor) -> None:
    tuning = moved(backbone, scale=0.5)
    weights = {n: w.detach().requires_grad_() for n, w in tuning.weights().items()}
    name = "transformer.resblocks.7.attn.in_proj_weight"
    (dense,) = torch.autograd.grad(backbone.embed(images, weights).square()[:, :9].sum(), weights[name])
    backbone.embed(images, tuning.weights()).square()[:, :9].sum().backward()
    a, b = (tuning.trained[f"transformer.resblocks.7.attn.lora_{k}.weight"] for k in "AB")
    torch.testing.assert_close(b.grad, 0.5 * dense @ a.detach().T)
    torch.testing.assert_close(a.grad, 0.5 * b.detach().T @ dense)


def test_settling_again_and_again_starts_from_the_base(backbone: OpenClipBackbone, images: torch.Tensor) -> None:
    tuning = moved(backbone)
    expected = backbone.embed(images, tuning.weights())
    for _ in range(3):
        tuning.settle()
        torch.testing.assert_close(backbone.encode(images), expected.detach(), rtol=0, atol=0)
    with torch.no_grad():
        for factor in tuning.trained.values():
            factor.zero_()
    tuning.settle()
    base = load_file(checkpoint_path("base"))
    for name, parameter in backbone.module.named_parameters():
        assert torch.equal(parameter, base[f"visual.{name}"].float()), name


def test_a_rank_above_the_smallest_side_is_refused(backbone: OpenClipBackbone) -> None:
    assert check_rank(backbone, 96) == 96
    with pytest.raises(ValueError, match=r"rank: must be in \[1, 96\], the smaller side of transformer.*, got 97"):
        check_rank(backbone, 97)
