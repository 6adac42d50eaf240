"""Proves that statistics measured again equal those of a bare PyTorch loop, and that unfit models are refused."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.checkpoints import recalibration
from pipeline.checkpoints.merge_files import MergedFile, merge_files
from pipeline.checkpoints.prepared_merge import MergeSources
from pipeline.recipe import Recipe
from tasks.batch_norm import estimate, freeze, is_statistic, statistics
from tasks.vision.image_models import image_model
from tests.support.tiny_resnet import TinyResNet, trained

NAME = "timm/test_resnet"
RECIPE = Recipe.make("sum", "linear", 0.4, 0.8)


def bare_loop(module: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    """Measure as a PyTorch program does."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    module.train()
    with torch.no_grad():
        for batch in batches:
            module(batch)
    return {name: tensor for name, tensor in module.state_dict().items() if is_statistic(name)}


def test_estimate_is_the_cumulative_mean_and_leaves_the_module_as_it_was() -> None:
    batches = [2 + 3 * torch.randn(8, 3, 8, 8) for _ in range(3)]
    module, other = trained(1), trained(1)
    before = {n: p.clone() for n, p in module.named_parameters()}
    assert estimate(module, batches) == 24
    expected = bare_loop(other, batches)
    assert all(torch.equal(t, expected[n]) for n, t in module.state_dict().items() if n in expected)
    assert not any(m.training for m in module.modules())
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())
    assert {m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_estimate_weights_batches_by_their_size() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2)).eval()
    inputs = torch.randn(5, 2)
    estimate(module, [inputs[:3], inputs[3:]])
    assert torch.allclose(module[0].running_mean, inputs.mean(0))
    variance = (3 * inputs[:3].var(0) + 2 * inputs[3:].var(0)) / 5
    assert torch.allclose(module[0].running_var, variance)


@pytest.mark.parametrize("batches", [[], [torch.randn(1, 3, 8, 8)]])
def test_estimate_needs_two_inputs(batches: list[Tensor]) -> None:
    module = TinyResNet().eval()
    with pytest.raises(ValueError, match="statistics of batches: need"):
        estimate(module, batches)
    assert not any(m.training for m in module.modules())


@pytest.fixture
def sources(tmp_path: Path) -> MergeSources:
    torch.manual_seed(0)
    base = timm.create_model("test_resnet", num_classes=7)
    paths = []
    for place in range(3):
        state = {n: t + 0.02 * place * torch.randn_like(t) if t.ndim > 1 else t for n, t in base.state_dict().items()}
        paths.append(str(tmp_path / f"{place}.safetensors"))
        save_file({f"module.{n}": t for n, t in state.items()}, paths[-1])
    rng = np.random.default_rng(0)
    for place in range(8):
        folder = tmp_path / "images" / str(place % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{place}.png")
    return MergeSources(paths[0], paths[1:], blocks=r"layer(\d+)\.(\d+)\.")


def recalibrated(sources: MergeSources, folder: Path, model: str | None = NAME) -> MergedFile:
    where = MergeSources(
        sources.base, sources.experts, blocks=sources.blocks, recalibrate=str(folder / "images"), model=model
    )
    return merge_files(where, RECIPE, folder / "out.safetensors")


def test_a_merge_has_the_statistics_of_a_bare_loop(
    sources: MergeSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalibration, "BATCH", 4)
    written = recalibrated(sources, tmp_path)
    merge_files(sources, RECIPE, tmp_path / "averaged.safetensors")
    found, averaged = load_file(tmp_path / "out.safetensors"), load_file(tmp_path / "averaged.safetensors")
    module = timm.create_model("test_resnet", num_classes=7)
    module.load_state_dict({n.removeprefix("module."): t for n, t in averaged.items()})
    model = image_model(NAME)
    files = recalibration.Recalibration.of(str(tmp_path / "images"), NAME).files
    inputs = torch.stack([model.input(Image.open(path)) for path in files])
    expected = bare_loop(module, [inputs[:4], inputs[4:]])
    assert found.keys() == averaged.keys()
    for name, tensor in found.items():
        right = expected.get(name.removeprefix("module."), averaged[name])
        assert torch.allclose(tensor, right, rtol=1e-5, atol=1e-6) and tensor.dtype == averaged[name].dtype
    by_what = {part.what: set(part.names) for part in written.coverage}
    assert by_what["measured on 8 images, as statistics of batches"] == {n for n in found if is_statistic(n)}
    assert "averaged, as statistics of batches" not in by_what


def test_what_does_not_fit_is_refused(sources: MergeSources, tmp_path: Path) -> None:
    def refuses(message: str, model: str | None) -> None:
        with pytest.raises(ValueError, match=message):
            recalibrated(sources, tmp_path, model)
        assert not (tmp_path / "out.safetensors").exists()

    refuses("--recalibrate: needs --model with the architecture", None)
    refuses("--model: no architecture 'timm/test_resnt'; did you mean 'test_resnet'", "timm/test_resnt")
    refuses("--model: no architecture 'torchvision/resnet'", "torchvision/resnet")
    refuses("--model: .*has no batch normalisation", "timm/test_vit")
    refuses("--model: is not the architecture of these weights: missing or mis-shaped are", "timm/test_efficientnet")
    (tmp_path / "images" / "0" / "bad.png").write_bytes(b"no image")
    refuses("--recalibrate: .*bad.png", NAME)
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    refuses("must hold two images or more .* got 0", NAME)
    with pytest.raises(ValueError, match="--model: is used with --recalibrate only"):
        merge_files(MergeSources("no.pt", ["no.pt"], model=NAME), RECIPE, tmp_path / "out.safetensors")


def test_an_open_clip_tower_is_found_behind_its_prefix() -> None:
    model = image_model("embedded/tiny-convnext")
    assert model.input(Image.new("L", (50, 40))).shape == (3, 32, 32)


def test_a_layer_that_no_input_reaches_keeps_its_statistics_and_counters_stay() -> None:
    module, unused = trained(1), nn.BatchNorm1d(2)
    unused.running_mean += 3
    module.add_module("unused", unused)
    counters = {n: t.clone() for n, t in module.named_buffers() if n.endswith("num_batches_tracked")}
    estimate(module, [torch.randn(4, 3, 8, 8)])
    assert unused.running_mean.tolist() == [3, 3] and max(counters.values()) == 3
    assert all(torch.equal(t, dict(module.named_buffers())[n]) for n, t in counters.items())


def test_frozen_statistics_stay_in_training() -> None:
    module = trained(1).train()
    freeze(module)
    before = {n: t.clone() for n, t in statistics(module).items()}
    module(torch.randn(4, 3, 8, 8))
    assert module.training and all(torch.equal(t, before[n]) for n, t in statistics(module).items())
