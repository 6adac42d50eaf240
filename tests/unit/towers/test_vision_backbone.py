"""Proves the family `vision`: features are the library's, heads come from training images of the base alone."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tower import PREPROCESSING, state, tower, write_images, write_tower
from torch.nn import functional as F

from tasks.base import TaskRequest
from tasks.files.cache import cache_root
from tasks.loading import load_task
from tasks.towers.backbone import VisionBackbone, build
from tasks.vision.classification import ZeroShotClassification

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("towers") / "dinov2")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", {"train": 30, "val": 9, "test": 12})


def task(backbone: VisionBackbone, source: Path | str, **options: object) -> ZeroShotClassification:
    found = load_task(TaskRequest("colours", str(source), {}, options), backbone)
    assert isinstance(found, ZeroShotClassification)
    return found


def pixels(backbone: VisionBackbone, images_BCHW: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(PREPROCESSING[f"image_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
    return (images_BCHW.float() / 255 - mean) / std


@pytest.mark.parametrize(("pooling", "size"), [("cls", 28), ("mean", 56)])
def test_features_are_those_of_transformers(folder: Path, pooling: str, size: int) -> None:
    from transformers import AutoModel

    backbone = tower(folder, pooling=pooling, image_size=size)
    assert (backbone.layer_map.num_blocks, backbone.preprocess.size) == (3, (size, size))
    assert backbone.layer_map.depth("encoder.layer.1.mlp.fc1.weight") == 0.5
    images_BCHW = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder)(pixels(backbone, images_BCHW)).last_hidden_state
    expected = hidden[:, 0] if pooling == "cls" else hidden.mean(dim=1)
    torch.testing.assert_close(backbone.encode(images_BCHW), F.normalize(expected, dim=-1))


def test_a_head_is_fitted_to_training_images_of_the_base_and_kept(folder: Path, images: Path) -> None:
    backbone = tower(folder)
    first = task(backbone, images)
    right = first.evaluate(backbone, "test", 0, 12).stats.mean
    assert right > 0.5  # of three colours
    heads = list((cache_root() / "heads").glob("*.safetensors"))
    assert len(heads) == 1
    before = heads[0].stat().st_mtime_ns
    for path in (images / "test").rglob("*.png"):  # other images to score: the same head
        path.unlink()
    write_images(images, {"test": 6}, seed=1)
    with torch.no_grad():
        next(backbone.module.parameters()).add_(1)
    again = task(backbone, images)  # a worker may load tasks again under edited weights: the head stays the base's
    assert heads[0].stat().st_mtime_ns == before and torch.equal(again.head_KD, first.head_KD)
    with pytest.raises(AssertionError, match="heads are fitted to the base"):
        task(backbone, images, classifier="class_means")
    other = task(tower(folder), images, classifier="class_means")
    assert other.fingerprint != again.fingerprint


def test_a_shifted_set_has_the_head_of_the_source_that_it_names(folder: Path, images: Path, tmp_path: Path) -> None:
    backbone = tower(folder)
    shifted = tmp_path / "shifted" / "test"
    shifted.mkdir(parents=True)
    for name in ("blue", "red"):
        (images / "test" / name).rename(shifted / name)
    own, of_other = task(backbone, images), task(backbone, shifted.parent, fitted_on=str(images))
    assert own.class_names == ("blue", "green", "red") and of_other.class_names == ("blue", "red")
    assert torch.equal(of_other.head_KD, own.head_KD[[0, 2]])
    features = backbone.encode(of_other.splits["test"].slice(0, 2))
    torch.testing.assert_close(of_other.logits(features), own.logits(features)[:, [0, 2]])
    with pytest.raises(ValueError, match=r"no training images.*\n?.*or name a source .* in tasks\.colours\.options\.f"):
        task(backbone, shifted.parent)
    (shifted / "red").rename(shifted / "rod")
    with pytest.raises(ValueError, match=r"options\.fitted_on: it has no class 'rod'; did you mean 'red'\?"):
        task(backbone, shifted.parent, fitted_on=str(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ["a {}"]}, r"options\.templates: are for a text tower, which backbone\.family: vision does not"),
        ({"classifier": "ridg"}, r"options\.classifier: unknown classifier 'ridg'; did you mean 'ridge'\?"),
        ({"fitted_on": "embedded/nothing"}, r"tasks\.colours\.options\.fitted_on: embedded/nothing: no such embedded"),
    ],
)
def test_wrong_options_of_a_task_are_named(folder: Path, images: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(tower(folder), images, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": "56"}, r"backbone\.options\.image_size: must be a whole number of pixels, got '56'"),
        ({"pooling": "max"}, r"backbone\.options\.pooling: must be cls or mean, got 'max'"),
        ({"preprocess": ["mean"]}, r"backbone\.options\.preprocess: must be a mapping of mean, std"),
        ({"preprocess": {"std": [0, 1, 1]}}, r"preprocess\.std: must be above 0, as images are divided by it, got \[0"),
        ({"preprocess": {"mean": [math.nan] * 3}}, r"preprocess\.mean: must be three numbers"),
        ({"preprocess": {"interpolation": "cubic"}}, r"preprocess\.interpolation: must be one of bicubic, bilinear"),
        ({"preprocess": {"resize_mode": "x"}}, r"preprocess\.resize_mode: must be one of shortest, longest, squash"),
        ({"preprocess": {"fill_color": "red"}}, r"preprocess\.fill_color: must be a grey value from 0 to 255"),
        ({"preprocess": {"mean": [0.5]}}, r"backbone\.options\.preprocess\.mean: must be three numbers"),
        ({"classes": ["a"]}, r"backbone\.options\.classes: unknown option; known: attention, image_size, pooling"),
    ],
)
def test_wrong_options_of_the_model_are_named(folder: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tower(folder, **options)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"crop_size": {"height": 28}}, r"backbone\.options\.image_size: must be given"),
        ({"crop_size": -3}, r"the size must be whole numbers of pixels, got -3: set backbone\.options\.image_size"),
        ({"resample": [3]}, r"resample: must be 2 \(bilinear\) or 3 \(bicubic\), got \[3\]"),
        ({"do_rescale": False}, r"rescale_factor: must be 1/255, and do_rescale true"),
        ({"rescale_factor": 1}, r"rescale_factor: must be 1/255, and do_rescale true"),
        ({"do_flip_channel_order": True}, r"images in the order blue, green, red are not supported"),
    ],
)
def test_a_preprocessing_that_is_not_done_here_is_refused(folder: Path, stated: Any, message: str) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | stated))
    with pytest.raises(ValueError, match=message):
        tower(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING | {"do_normalize": False}))
    assert (found := tower(folder).preprocess).mean == (0, 0, 0) and found.std == (1, 1, 1)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))


def test_no_head_is_fitted_to_images_that_do_not_tell_classes_apart(folder: Path, images: Path) -> None:
    first, *others = (images / "train").rglob("*.png")
    with pytest.raises(ValueError, match=r"^backbone\.options\.image_size: images of 13 x 13 pixels are smaller than"):
        task(tower(folder, image_size=13), images)
    for path in others:
        path.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"^tasks\.colours: all \d+ training images have the same features"):
        task(tower(folder), images)
    backbone = tower(folder)
    next(backbone.module.parameters()).data.fill_(math.nan)
    with pytest.raises(ValueError, match=r"^tasks\.colours: the base's features of training images are NaN"):
        task(backbone, images)


def test_a_checkpoint_is_selected_in_all_its_layouts_or_refused(folder: Path) -> None:
    backbone = tower(folder)
    own = {name: p.detach().clone() for name, p in backbone.module.named_parameters()}
    classifier = {f"dinov2.{name}": t for name, t in own.items()} | {"classifier.weight": torch.zeros(3, 64)}
    for found in (state(folder), own, classifier):
        selected = backbone.select(found, "expert")
        assert selected.keys() == own.keys() and all(torch.equal(selected[name], own[name]) for name in own)
    with pytest.raises(ValueError, match="expert: is not a checkpoint of this architecture: 1 missing tensors"):
        backbone.select({name: t for name, t in own.items() if name != "layernorm.bias"}, "expert")


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig(num_hidden_layers=2).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"backbone\.model: .*type 'bert' is not an image model: set backbone\.family: .*encoder"
    ):
        build(str(tmp_path), {}, CPU, torch.float32)


def test_a_tower_of_timm_with_batch_normalisation(images: Path) -> None:
    import timm

    torch.manual_seed(0)
    whole = timm.create_model("test_efficientnet", num_classes=3).eval()
    with torch.no_grad():
        for buffer in whole.buffers():
            buffer.add_(1)  # statistics are read too
    backbone = build("timm/test_efficientnet", whole.state_dict(), CPU, torch.float32, {"image_size": 32})
    images_BCHW = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        inputs = backbone.preprocess.normalise(images_BCHW, torch.float32)
        expected = whole.forward_head(whole.forward_features(inputs), pre_logits=True)
    torch.testing.assert_close(backbone.encode(images_BCHW), F.normalize(expected, dim=-1))
    assert backbone.layer_map.num_blocks > 1 and task(backbone, images).num_samples("test") == 12
    with pytest.raises(ValueError, match=r"backbone\.model: timm/test_efficient: timm has no such arch.*; did"):
        build("timm/test_efficient", {}, CPU, torch.float32)
