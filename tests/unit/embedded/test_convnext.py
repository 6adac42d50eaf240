"""Proves that the embedded ConvNeXt is a pre-trained CLIP with experts, and that timm's folder is found."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tasks.base import TaskRequest
from tasks.embedded import checkpoint_path, model_config_path
from tasks.embedded.rebuild.convnext import EXPERTS, augment, distillation_loss
from tasks.loading import load_task
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import OpenClipBackbone, build

CPU = torch.device("cpu")
SAMPLES = 300


@pytest.fixture(scope="module")
def backbone() -> OpenClipBackbone:
    return build("embedded/tiny-convnext", load_file(checkpoint_path("convnext")), CPU, torch.float32)


def accuracy(backbone: OpenClipBackbone, state: dict[str, Tensor], task: str) -> float:
    """Return zero-shot accuracy on validation under the image tower of `state`."""
    backbone.module.load_state_dict(backbone.select(state, task))
    return (
        load_task(TaskRequest(task, f"embedded/{task}", {"val": SAMPLES}), backbone)
        .evaluate(backbone, "val", 0, SAMPLES)
        .stats.mean
    )


def test_blocks_are_numbered_over_the_stages(backbone: OpenClipBackbone) -> None:
    layers = backbone.layer_map
    assert layers.num_blocks == 1 + 2 + 4 + 2
    firsts = [layers.blocks[f"trunk.stages.{stage}.blocks.0.gamma"] for stage in range(4)]
    assert firsts == [0, 1, 3, 7]
    outside = {n.split(".")[1] for n, _ in backbone.module.named_parameters() if layers.depth(n) is None}
    assert outside == {"stem", "stages", "head", "proj"}
    assert layers.depth("trunk.stages.3.downsample.1.weight") is None


def test_text_tower_and_temperature_are_those_of_the_base(backbone: OpenClipBackbone) -> None:
    vit = build("embedded/tiny-vit", load_file(checkpoint_path("base")), CPU, torch.float32)
    for name, tensor in vit.text.weights.items():
        assert torch.equal(backbone.text.weights[name], tensor)
    assert torch.equal(vit.head(["a", "b"], ["a {}"]).weights_KD, backbone.head(["a", "b"], ["a {}"]).weights_KD)


def test_files_are_finite_halves() -> None:
    for name in ("convnext", *(f"convnext-{task}" for task in EXPERTS)):
        state = load_file(checkpoint_path(name))
        assert {tensor.dtype for tensor in state.values()} == {torch.float16}
        assert torch.cat([tensor.flatten() for tensor in state.values()]).isfinite().all()


@pytest.mark.parametrize("task", EXPERTS)
def test_every_expert_is_better_at_its_task_than_the_base(backbone: OpenClipBackbone, task: str) -> None:
    base, expert = load_file(checkpoint_path("convnext")), load_file(checkpoint_path(f"convnext-{task}"))
    assert accuracy(backbone, expert, task) > accuracy(backbone, base, task)


def test_the_base_knows_what_its_teacher_knows(backbone: OpenClipBackbone) -> None:
    assert accuracy(backbone, load_file(checkpoint_path("convnext")), "mnist") > 0.85


def test_distillation_asks_for_the_teachers_embeddings() -> None:
    torch.manual_seed(0)
    heads, teacher, student = (F.normalize(torch.randn(n, 8), dim=-1) for n in (5, 4, 4))
    assert distillation_loss(teacher, teacher, heads, 20.0).item() == pytest.approx(0, abs=1e-6)
    p, q = ((20 * e @ heads.T).softmax(-1) for e in (teacher, student))
    divergence = (p * (p / q).log()).sum(-1).mean()
    cosine = 1 - (teacher * student).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, heads, 20.0), divergence + 5 * cosine)


def test_augmentation_keeps_shape_and_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32)).astype(np.uint8)
    torch.manual_seed(0)
    images = augment(pixels, np.random.default_rng(0))
    assert images.shape == (64, 3, 32, 32) and images.isfinite().all()
    assert images.abs().max() <= 0.5 / 0.35 + 1e-5


def test_a_folder_of_timms_lies_beside_the_configuration(tmp_path: Path) -> None:
    source = model_config_path("tiny-convnext")
    config = shutil.copy(source, tmp_path)
    with pytest.raises(ValueError, match=r"tiny-convnext\.json: vision_cfg\.timm_model_name: no file .*config\.json"):
        create(config, {})
    shutil.copytree(source.with_suffix(""), tmp_path / "tiny-convnext")
    shutil.copy(source.with_name("bpe_2048.txt.gz"), tmp_path)
    trunk = create(config, {}).model.visual.trunk
    described = json.loads((tmp_path / "tiny-convnext" / "config.json").read_text())["model_args"]
    assert [len(stage.blocks) for stage in trunk.stages] == described["depths"]
