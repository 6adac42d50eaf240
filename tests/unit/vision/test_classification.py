"""Proves that accuracy equals a plain loop's, that heads are the paper's and cached, and that NaN is not a score."""

from pathlib import Path

import numpy as np
import pytest
import torch
from damage import flip
from PIL import ExifTags, Image
from safetensors.torch import load_file
from torch.nn import functional as F

from tasks.base import NonFiniteOutput, TaskRequest
from tasks.files.cache import cache_root
from tasks.loading import load_task
from tasks.vision.classification import ZeroShotClassification
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import OpenClipBackbone, build
from tasks.vision.heads import text_head
from tasks.vision.images import content_hash
from tasks.vision.sources import image_source


def tiny(seed: int = 0) -> OpenClipBackbone:
    torch.manual_seed(seed)
    state = create("embedded/tiny-vit", {}).model.state_dict()
    return build("embedded/tiny-vit", state, torch.device("cpu"), torch.float32)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("red_thing", "green_thing", "blue_thing"):
        folder = tmp_path / "images/test" / name
        folder.mkdir(parents=True)
        for i in range(10):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "images"


def load(
    backbone: OpenClipBackbone, source: Path | str, limit: int | None = None, **options: object
) -> ZeroShotClassification:
    task = load_task(TaskRequest("things", str(source), {"test": limit}, options), backbone)
    assert isinstance(task, ZeroShotClassification)
    return task


def test_outcomes_are_those_of_a_plain_loop(images: Path) -> None:
    backbone = tiny()
    templates = ["a {} here", "some {}"]
    task = load(backbone, images, templates=templates, batch_size=7)
    weights = []
    for name in ("blue thing", "green thing", "red thing"):
        tokens = backbone.text.tokenize([t.format(name) for t in templates])
        mean = backbone.text.encode(tokens).mean(dim=0)
        weights.append(mean / mean.norm())
    head = torch.stack(weights) * backbone.text.logit_scale
    split = task.splits["test"]
    expected = (backbone.encode(split.slice(0, 30)) @ head.T).argmax(dim=1) == split.labels_N
    result = task.evaluate(backbone, "test", 0, 30)
    assert result.outcomes.dtype == np.bool_ and np.array_equal(result.outcomes, expected.numpy())
    assert (result.stats.n, result.stats.total) == (30, expected.sum().item())


def test_the_head_is_computed_once_and_read_again() -> None:
    backbone = tiny()
    first = text_head(backbone.text, ["cat", "dog {}"], ["a {}", "the {}"])
    files = sorted((cache_root() / "heads").glob("*.safetensors"))
    before = files[0].stat().st_mtime_ns
    again = text_head(backbone.text, ["cat", "dog {}"], ["a {}", "the {}"])
    assert torch.equal(first.weights_KD, again.weights_KD) and first.key == again.key
    assert len(files) == 1 and files[0].stat().st_mtime_ns == before
    scale = torch.full((2,), backbone.text.logit_scale)
    torch.testing.assert_close(first.weights_KD.norm(dim=1), scale)
    others = [
        text_head(backbone.text, ["cat", "dog"], ["a {}", "the {}"]),
        text_head(backbone.text, ["cat", "dog {}"], ["a {}"]),
        text_head(tiny(1).text, ["cat", "dog {}"], ["a {}", "the {}"]),
    ]
    assert len({first.key, *(h.key for h in others)}) == 4


def test_identity_covers_data_and_prompts_but_not_how_it_is_read(images: Path) -> None:
    backbone = tiny()
    task = load(backbone, images)
    assert load(backbone, images, limit=5, batch_size=3).fingerprint == task.fingerprint
    others = [
        load(backbone, images, templates=["an {}"]),
        load(backbone, images, class_names={"red_thing": "crimson"}),
        load(tiny(1), images),
    ]
    Image.new("RGB", (32, 32)).save(images / "test/red_thing/new.png")
    others.append(load(backbone, images))
    assert len({task.fingerprint, *(t.fingerprint for t in others)}) == 5


def test_limits_take_the_first_of_the_same_order(images: Path) -> None:
    backbone = tiny()
    whole, part = load(backbone, images), load(backbone, images, limit=12)
    assert part.num_samples("test") == 12 and part.keys("test") == whole.keys("test")[:12]
    assert len(set(whole.splits["test"].labels_N[:12].tolist())) == 3
    assert part.num_samples("val") == 0
    with pytest.raises(ValueError, match=r"things: test\[0:13\] is not within its 12 samples"):
        part.evaluate(backbone, "test", 0, 13)


def test_weights_that_are_not_finite_are_a_failure(images: Path) -> None:
    backbone = tiny()
    task = load(backbone, images)
    with torch.no_grad():
        next(backbone.module.parameters())[0] = float("nan")
    with pytest.raises(NonFiniteOutput, match="non-finite logits"):
        task.evaluate(backbone, "test", 0, 30)


def test_edited_weights_change_the_score_and_theta0_gives_it_back(images: Path) -> None:
    backbone = tiny()
    task = load(backbone, images)
    before = F.normalize(backbone.encode(task.splits["test"].slice(0, 30)), dim=-1)
    base = {n: p.detach().clone() for n, p in backbone.module.named_parameters()}
    with torch.no_grad():
        for parameter in backbone.module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert not torch.equal(backbone.encode(task.splits["test"].slice(0, 30)), before)
    with torch.no_grad():
        for name, parameter in backbone.module.named_parameters():
            parameter.copy_(base[name])
    assert torch.equal(F.normalize(backbone.encode(task.splits["test"].slice(0, 30)), dim=-1), before)


def test_bad_requests_are_explained(images: Path) -> None:
    backbone = tiny()
    with pytest.raises(ValueError, match=r"tasks\.things: 'imagez' is not a folder, an embedded pack or"):
        load(backbone, "imagez")
    with pytest.raises(ValueError, match="embedded/mnst: no such embedded pack; did you mean 'mnist'"):
        load(backbone, "embedded/mnst")
    with pytest.raises(ValueError, match=r"tasks\.things\.options\.template: unknown option; did you mean 'templates'"):
        load(backbone, images, template=["a {}"])
    with pytest.raises(ValueError, match=r"tasks\.things\.options\.val_fraction: unknown option"):
        load(backbone, "embedded/mnist", val_fraction=0.5)
    with pytest.raises(ValueError, match="each must hold {} exactly once, got 'a photo'"):
        load(backbone, images, templates=["a photo"])
    with pytest.raises(ValueError, match=r"templates: must be a list of strings, got 'a \{\}'"):
        load(backbone, images, templates="a {}")
    with pytest.raises(ValueError, match=r"batch_size: must be a whole number, at least 1, got 0"):
        load(backbone, images, batch_size=0)
    with pytest.raises(ValueError, match=r"tasks\.things\.limits\.test: must be a whole number, at least 1, got 0"):
        load(backbone, images, limit=0)
    with pytest.raises(ValueError, match="str does not encode images and classes"):
        load_task(TaskRequest("things", str(images)), "backbone")  # type: ignore[arg-type]


def test_images_are_turned_upright_only_if_the_task_asks(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = images / "test/red_thing/0.png"
    stored = Image.open(path)
    stored.save(path.with_suffix(".webp"), lossless=True, exif=exif)
    path.unlink()
    before = load(tiny(), images)
    text = f"tasks.things: {images}: 1 of 30 images have an EXIF orientation, which is ignored"
    assert text in caplog.text and "set options: {exif_orientation: true}" in caplog.text
    caplog.clear()
    after = load(tiny(), images, exif_orientation=True)
    assert not caplog.records and after.fingerprint != before.fingerprint
    assert load(tiny(), images, exif_orientation=False).fingerprint == before.fingerprint
    row = after.keys("test").index(content_hash(path.with_suffix(".webp").read_bytes()).hex())
    pixels = np.asarray(stored.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(after.splits["test"].slice(row, row + 1)[0].permute(1, 2, 0).numpy(), pixels)
    with pytest.raises(ValueError, match=r"options\.exif_orientation: must be true or false, got 'yes'"):
        load(tiny(), images, exif_orientation="yes")
    with pytest.raises(ValueError, match=r"options\.exif_orientation: unknown option"):
        load(tiny(), "embedded/mnist", exif_orientation=True)


def test_cut_prompts_are_named(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tiny(), images, templates=["{} " + "very " * 80])
    assert f"tasks.things: {images}: 3 prompts are cut" in caplog.text and "'blue thing very very" in caplog.text
    caplog.clear()
    load(tiny(), "embedded/kana")  # one prompt of the embedded model is cut, which no user can change
    assert not caplog.records


def test_shifted_packs_use_their_parents_head() -> None:
    parent, shifted = (image_source(TaskRequest("x", f"embedded/{name}")) for name in ("mnist", "digits8"))
    assert list(parent.class_names) == list(shifted.class_names) and parent.templates == shifted.templates


def test_a_damaged_head_is_computed_again(caplog: pytest.LogCaptureFixture) -> None:
    backbone = tiny()
    first = text_head(backbone.text, ["cat", "dog"], ["a {}"])
    (file,) = (cache_root() / "heads").glob("*.safetensors")
    flip(file, -1, bit=6)
    assert not torch.equal(load_file(file)["head"], first.weights_KD)
    assert torch.equal(text_head(backbone.text, ["cat", "dog"], ["a {}"]).weights_KD, first.weights_KD)
    assert f"cache {file}: " in caplog.text


def test_a_damaged_label_changes_no_outcome(images: Path) -> None:
    backbone = tiny()
    task = load(backbone, images, templates=["a {}"])
    before = task.evaluate(backbone, "test", 0, 30)
    (pack,) = (cache_root() / "images").glob("*/test.arrow")
    flip(pack, pack.read_bytes().index(task.splits["test"].labels_N.numpy().tobytes()))
    after = load(backbone, images, templates=["a {}"]).evaluate(backbone, "test", 0, 30)
    assert np.array_equal(after.outcomes, before.outcomes) and after.stats == before.stats
