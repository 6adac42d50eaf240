"""Proves that a classifier computes what its checkpoint's authors compute, and picks a task's classes by name."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from tasks.base import TaskRequest
from tasks.batch_norm import measuring
from tasks.loading import load_task
from tasks.vision.classification import ZeroShotClassification
from tasks.vision.classifier import ClassifierBackbone, build
from tasks.vision.clip.architectures import create

CPU = torch.device("cpu")
CLASSES = ["cat", "dog", "missile", "bird", "missile"]
WORDNET = files("tasks.vision.published") / "wordnet_ids.yaml"
MODEL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 7, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.json"
    path.write_text(json.dumps(MODEL))
    return str(path)


def soup_member(model: str, seed: int = 0, classes: int = len(CLASSES)) -> dict[str, Tensor]:
    """Return the layout of the soups' model_N.pt: OpenAI's names after `model.`, no text transformer, the head."""
    torch.manual_seed(seed)
    state = create(model, {}).model.state_dict()
    names = [n for n in state if not n.startswith("transformer.") and n != "attn_mask"]
    head = {"weight": torch.randn(classes, 16), "bias": torch.randn(classes)}
    return {f"model.{n}": state[n] for n in names} | {f"classification_head.{n}": t for n, t in head.items()}


def built(
    model: str, state: dict[str, Tensor], dtype: torch.dtype = torch.float32, **options: Any
) -> ClassifierBackbone:
    return build(model, state, CPU, dtype, {"classes": CLASSES, **options})


def images(count: int = 6) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_logits_are_the_head_on_normalised_features(model: str) -> None:
    state = soup_member(model)
    backbone = built(model, state)
    reference = create(model, {}).model.visual.eval()
    reference.load_state_dict({n.removeprefix("model.visual."): t for n, t in state.items() if ".visual." in n})
    with torch.no_grad():
        features = reference(backbone.preprocess.normalise(images(), torch.float32))
    expected = features / features.norm(dim=-1, keepdim=True) @ state["classification_head.weight"].T
    torch.testing.assert_close(backbone.encode(images()), expected + state["classification_head.bias"])


def test_in_bfloat16_logits_are_float32_and_close(model: str) -> None:
    state = soup_member(model)
    low, exact = (built(model, state, dtype).encode(images()) for dtype in (torch.bfloat16, torch.float32))
    assert low.dtype == torch.float32 and 0 < (low - exact).abs().max() < 0.1


def test_the_head_is_outside_the_blocks(model: str) -> None:
    layers = built(model, soup_member(model)).layer_map
    assert layers.num_blocks == 3
    assert layers.depth("classification_head.weight") is None and layers.depth("visual.conv1.weight") is None
    assert layers.depth("visual.transformer.resblocks.1.mlp.c_fc.weight") == 0.5


LAYOUTS = {
    "soups": lambda s: s,
    "data parallel": lambda s: {f"module.{n}": t for n, t in s.items()},
    "this project's": lambda s: {n.removeprefix("model."): t for n, t in s.items() if "visual" in n or "head" in n},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_tower_and_head(model: str, layout: str) -> None:
    backbone, expert = built(model, soup_member(model)), soup_member(model, seed=1)
    found = backbone.select(LAYOUTS[layout](expert), "file")
    assert list(found) == [n for n, _ in backbone.module.named_parameters()]
    assert all(torch.equal(t, expert[n if "head" in n else f"model.{n}"]) for n, t in found.items())


def test_gradients_reach_head_and_tower(model: str) -> None:
    backbone = built(model, soup_member(model))
    weights = {n: p.clone().requires_grad_() for n, p in backbone.module.named_parameters()}
    F.cross_entropy(backbone.embed(images(), weights), torch.zeros(6, dtype=torch.long)).backward()
    gradients = {n: w.grad for n, w in weights.items()}
    for name in ("classification_head.bias", "visual.conv1.weight"):
        gradient = gradients[name]
        assert gradient is not None and gradient.any()


def test_a_task_takes_its_classes_by_name(model: str) -> None:
    backbone = built(model, soup_member(model))
    logits = backbone.encode(images())

    def picked(names: list[str]) -> Tensor:
        return logits @ backbone.head(names, ["unused {}"]).weights_KD.T

    assert torch.equal(picked(["bird", "cat"]), logits[:, [3, 0]])
    assert torch.equal(picked(["missile"]), logits[:, [2]])
    assert torch.equal(picked(CLASSES), logits)
    assert backbone.head(["bird", "cat"], []).key != backbone.head(["cat", "bird"], []).key
    with pytest.raises(ValueError, match="the head has no class 'bat'; did you mean 'cat'"):
        backbone.head(["cat", "bat"], [])
    with pytest.raises(ValueError, match="no class 'dog' 2 times"):
        backbone.head(["dog", "dog"], [])


@pytest.mark.parametrize("name", ["ImageNet", "ImageNetR", "ImageNetA"])
def test_imagenets_subsets_get_their_own_rows(model: str, name: str) -> None:
    """Two pairs of ImageNet's classes share a name; a subset that holds one of a pair must get its own row."""
    ids = yaml.safe_load(WORDNET.read_text())
    rows = [ids["ImageNet"].index(wordnet_id) for wordnet_id in ids[name]]
    backbone = built(model, soup_member(model, classes=1000), classes="imagenet")
    head = backbone.head([open_clip.IMAGENET_CLASSNAMES[row] for row in rows], [])
    assert head.weights_KD.argmax(1).tolist() == rows and head.weights_KD.sum() == len(rows)


def test_a_task_is_scored_over_the_classes_that_it_has(model: str) -> None:
    """The head's largest logit is always "cat", which is not a digit, and among the digits "7"."""
    classes = ["cat", *reversed([str(digit) for digit in range(10)])]
    state = soup_member(model, classes=len(classes))
    state["classification_head.bias"] += torch.tensor([1000.0 * (c == "cat") + 100.0 * (c == "7") for c in classes])
    backbone = built(model, state, classes=classes)
    task = load_task(TaskRequest("mnist", "embedded/mnist", {"val": 200}), backbone)
    assert isinstance(task, ZeroShotClassification)
    _, labels = task.batch("val", torch.arange(200), CPU)
    sevens = (labels == 7).numpy()
    assert (task.evaluate(backbone, "val", 0, 200).outcomes == sevens).all() and 5 < sevens.sum() < 50


def test_what_does_not_fit_is_refused(model: str) -> None:
    state = soup_member(model)
    tower = {n: t for n, t in state.items() if "head" not in n}
    with pytest.raises(ValueError, match=r"base: has no classification_head\.weight.*family: open_clip"):
        built(model, tower)
    with pytest.raises(ValueError, match=r"options\.classes: names 2 classes, but the base's head has 5"):
        built(model, state, classes=["a", "b"])
    for wrong in (None, [], ["a", 3], "imagenet21k"):
        with pytest.raises(ValueError, match=r"options\.classes: must be the names of the head's classes"):
            built(model, state, classes=wrong)
    with pytest.raises(ValueError, match=r"backbone\.options\.clases: unknown option; did you mean 'classes'"):
        built(model, state, clases=CLASSES)
    backbone = built(model, state)
    with pytest.raises(ValueError, match=r"expert: .*1 missing tensors \(classification_head\.bias\)"):
        backbone.select({n: t for n, t in state.items() if not n.endswith("head.bias")}, "expert")
    with pytest.raises(ValueError, match=r"expert: .*mis-shaped tensors \(classification_head"):
        backbone.select(soup_member(model, classes=4), "expert")
    with pytest.raises(ValueError, match=r"expert: 1 unexpected tensors \(regressor\.weight\)"):
        backbone.select(state | {"model.regressor.weight": torch.zeros(1)}, "expert")


def test_a_classifier_with_batch_normalisation_is_measured_in_place(tmp_path: Path) -> None:
    tower = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    (tmp_path / "model.json").write_text(json.dumps(MODEL | {"vision_cfg": tower}))
    state = soup_member(str(tmp_path / "model.json"))
    backbone = built(str(tmp_path / "model.json"), state)
    assert backbone.select(state, "expert.pt").keys() == dict(backbone.module.named_parameters()).keys()
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with measuring(backbone.module):
        backbone.encode(pixels)
    conv = backbone.module.visual.conv1
    expected = conv(backbone.preprocess.normalise(pixels, torch.float32)).mean((0, 2, 3))
    torch.testing.assert_close(backbone.module.visual.bn1.running_mean, expected)
