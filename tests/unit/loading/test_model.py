"""Proves that checkpoints published for the paper's models are read as they are named and laid out, from a cache."""

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from own_models import Trainer, visual, write_authors, write_hugging_face
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from pipeline.loading.experts import load_checkpoints
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from tasks.vision.clip.layouts import to_open_clip

#: The folder of ViT-B/16 was seen in upper case; what is written after hf: is taken as it stands.
_EXPERTS = (("ViT-B-32", "MNIST"), ("VIT-B-16", "DTD"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CPU = torch.device("cpu")
#: Tensors, parameters and megabytes of the published files of one expert.
AUTHORS = {
    "ViT-B-32": (158, 113_448_705, 454),
    "ViT-B-16": (158, 111_792_129, 447),
    "ViT-L-14": (302, 342_562_049, 1370),
}
VISION_MODEL_MB = {"ViT-B-32": 350, "ViT-B-16": 343, "ViT-L-14": 1213}
"""Of tanganke/clip-vit-*: CLIPVisionModel, which has no projection."""


def whole(name: str) -> dict[str, Tensor]:
    """Names and shapes of OpenAI's model, without memory for its weights."""
    with torch.device("meta"):
        state: dict[str, Tensor] = CLIP(**open_clip.get_model_config(f"{name}-quickgelu")).state_dict()
    return state


def megabytes(state: dict[str, Tensor]) -> float:
    return sum(tensor.numel() for tensor in state.values()) * 4 / 1e6


@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_files_hold_all_but_the_text_transformer(name: str) -> None:
    """Their sizes on the hub show it; their image tower is the whole of ours."""
    state = whole(name)
    kept = {f"model.{n}": t for n, t in state.items() if not n.startswith("transformer.")}
    tensors, parameters, published = AUTHORS[name]
    assert (len(kept), sum(t.numel() for t in kept.values())) == (tensors, parameters)
    assert megabytes(kept) == pytest.approx(published, rel=1e-2)
    found = to_open_clip(kept, name)
    assert {f"visual.{n}": t.shape for n, t in found.visual.items()} == {n: t.shape for n, t in visual(state).items()}
    tower = {n: t for n, t in visual(state).items() if n != "visual.proj"}
    assert megabytes(tower) == pytest.approx(VISION_MODEL_MB[name], rel=2e-3)


class Cache:
    """The hub's cache on this machine, as a download would have left it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, repo: str, file: str, write: Callable[[Path], object]) -> None:
        folder = self.root / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(COMMIT)
        path = folder / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return Cache(tmp_path / "hub")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with QuickGELU, whole, in place of OpenAI's."""
    folder = tmp_path_factory.mktemp("models") / "base"
    save_file(Trainer(folder).state(), folder / "open_clip_model.safetensors")
    return folder


def tuned(base: Path, seed: int) -> dict[str, Tensor]:
    """The base with another image tower; its projection is the base's."""
    state = load_file(base / "open_clip_model.safetensors")
    noise = torch.Generator().manual_seed(seed)
    moving = [n for n in visual(state) if n != "visual.proj"]
    return state | {n: state[n] + 0.01 * torch.randn(state[n].shape, generator=noise) for n in moving}


def spec(base: Path, experts: dict[str, str]) -> RunSpec:
    return parse_spec(
        {
            "name": "public",
            "backbone": {"family": "open_clip", "model": str(base / "open_clip_config.json")},
            "base": str(base),
            "experts": experts,
            "tasks": {name: f"data/{name}" for name in experts},
            "arms": {"sum": {"merge": "sum"}},
        }
    )


def check_task_vectors(base: Path, sources: dict[str, str]) -> None:
    """Expert number i, made by `tuned` with seed i, differs from the base by what was added."""
    run, theta_0 = spec(base, sources), load_file(base / "open_clip_model.safetensors")
    for seed, expert in enumerate(load_checkpoints(run, CPU)[1]):
        theta = tuned(base, seed)
        for name, tensor in expert.delta.items():
            whole_name = f"visual.{name}"
            torch.testing.assert_close(tensor, theta[whole_name] - theta_0[whole_name], rtol=0, atol=0)
        assert expert.delta["conv1.weight"].any()


def test_the_authors_experts_are_named_on_the_hub(cache: Cache, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [f"single_task/{model}/{task}Val/nonlinear_finetuned.pt" for model, task in _EXPERTS]
    for seed, file in enumerate(files):
        cache.add("nik-dim/tall_masks", file, lambda path, seed=seed: write_authors(path, tuned(base, seed)))
    check_task_vectors(base, {file.split("/")[2]: f"hf:nik-dim/tall_masks/{file}" for file in files})
    assert not caplog.text


def test_experts_of_hugging_face_are_named_by_their_repository(cache: Cache, base: Path) -> None:
    names = [f"clip-vit-base-patch32_{task}" for task in ("mnist", "emnist_letters")]
    for seed, name in enumerate(names):

        def write(path: Path, seed: int = seed) -> None:
            write_hugging_face(path.parent, tuned(base, seed))

        cache.add(f"tanganke/{name}", "model.safetensors", write)
    check_task_vectors(base, {name: f"hf:tanganke/{name}" for name in names})


def test_their_configuration_says_that_they_need_quick_gelu(cache: Cache, base: Path, tmp_path: Path) -> None:
    cache.add("tanganke/clip", "model.safetensors", lambda path: write_hugging_face(path.parent, tuned(base, 0)))
    config = json.loads((base / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = False
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(load_file(base / "open_clip_model.safetensors"), tmp_path / "open_clip_model.safetensors")
    run = spec(tmp_path, {"clip": "hf:tanganke/clip"})
    with pytest.raises(ValueError, match="experts.clip: .*computes gelu, but the weights next to .* need quick_gelu"):
        list(load_checkpoints(run, CPU)[1])


def test_masks_in_a_pickled_array_are_refused_unread(cache: Cache) -> None:
    masks = np.array({"MNISTVal": np.packbits(np.ones(16, bool))}, dtype=object)
    file = "tall_masks/ViT-B-32/TALL_mask_8task.npy"
    cache.add("nik-dim/tall_masks", file, lambda path: np.save(path, masks, allow_pickle=True))
    with pytest.raises(ValueError, match=r"TALL_mask_8task\.npy: must end in \.safetensors, .*got '\.npy'"):
        read_checkpoint(f"hf:nik-dim/tall_masks/{file}")


def test_a_file_that_is_not_there_is_named(cache: Cache) -> None:
    cache.add("nik-dim/tall_masks", "README.md", lambda path: path.write_text(""))
    with pytest.raises(ValueError, match="found none of single_task/ViT-B-16/MNISTVal/nonlinear_finetuned.pt in the"):
        locate("hf:nik-dim/tall_masks/single_task/ViT-B-16/MNISTVal/nonlinear_finetuned.pt")
