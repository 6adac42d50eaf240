"""Proves that files of the model soups' layout, with a head of their own, go through a whole run and a merge."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from small_run import Lines, write_spec
from torch import Tensor
from torch.nn import functional as F

from pipeline.loading.experts import load_checkpoints
from pipeline.loading.tasks import load_tasks
from pipeline.spec.load import parse_spec
from tasks import embedded
from tasks.base import Task
from tasks.vision.classification import ZeroShotClassification
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import build

CLASSES = [str(digit) for digit in range(10)]
SAMPLES = 120
CPU = torch.device("cpu")
MEMBERS = ("model_1", "model_2", "model_3")


def write_soup(folder: Path) -> None:
    """model_0.pt, a classifier whose head is the text tower's, and members a little off it, head and all."""
    base = {n: t.float() for n, t in load_file(embedded.checkpoint_path("base")).items()}
    head = build("embedded/tiny-vit", base, CPU, torch.float32).head(CLASSES, ["the number {}"])
    theta_0 = {f"model.{n}": t for n, t in base.items() if not n.startswith("transformer.")}
    theta_0 |= {"classification_head.weight": head.weights_KD, "classification_head.bias": torch.zeros(10)}
    torch.save(theta_0, folder / "model_0.pt")
    for seed, name in enumerate(MEMBERS):
        noise = torch.Generator().manual_seed(seed)
        moved = {n: t + _step(t, noise) if "visual" in n or "head" in n else t for n, t in theta_0.items()}
        torch.save(moved, folder / f"{name}.pt")


def _step(tensor: Tensor, noise: torch.Generator) -> Tensor:
    return 0.1 * (tensor.std(correction=0) + 0.1) * torch.randn(tensor.shape, generator=noise)


@pytest.fixture(scope="module")
def soup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_soup(folder := tmp_path_factory.mktemp("soup"))
    return folder


def spec(soup: Path) -> dict[str, Any]:
    return {
        "name": "soup",
        "backbone": {
            "family": "open_clip_classifier",
            "model": "embedded/tiny-vit",
            "options": {"classes": CLASSES},
        },
        "base": str(soup / "model_0.pt"),
        "experts": {name: str(soup / f"{name}.pt") for name in MEMBERS},
        "tasks": ["mnist"],
        "targets": dict.fromkeys(MEMBERS, "mnist"),
        "ood": ["digits8"],
        "arms": {
            "members": {"edit": "each_expert"},
            "uniform": {"merge": "average"},
            "LiNeS": {"merge": "average", "scaling": {"function": "linear", "alpha": {"grid": [0.0, 1.0]}, "beta": 1}},
        },
        "limits": {"val": 60, "test": SAMPLES},
        "shard_size": 60,
        "resources": {"pool": "local"},
    }


def soups_accuracy(state: dict[str, Tensor], task: Task) -> float:
    """As the soups' program scores a state dict: a linear layer on the normalised features of its own model."""
    assert isinstance(task, ZeroShotClassification)
    architecture = create("embedded/tiny-vit", {})
    tower = architecture.model.visual.eval()
    tower.load_state_dict({n.removeprefix("model.visual."): t for n, t in state.items() if ".visual." in n})
    images, labels = task.batch("test", torch.arange(SAMPLES), CPU)
    with torch.no_grad():
        features = F.normalize(tower(architecture.preprocess.normalise(images, torch.float32)), dim=-1)
        logits = F.linear(features, state["classification_head.weight"], state["classification_head.bias"])
    return float((logits.argmax(1) == labels).double().mean())


def test_a_soup_is_searched_from_files_of_the_published_layout(tmp_path: Path, soup: Path) -> None:
    status, output = Lines(tmp_path, {}).run(write_spec(tmp_path, spec(soup)), tmp_path / "run")
    assert status == 0, output
    rows = pq.read_table(tmp_path / "run" / "scores.parquet").to_pylist()
    found = {(r["arm"], r["group"], r["task"]): r["value"] for r in rows if r["split"] == "test"}
    run = parse_spec(spec(soup))
    tasks = load_tasks(run, load_checkpoints(run, CPU)[0].backbone, lambda *_: None)
    members = {name: torch.load(soup / f"{name}.pt") for name in MEMBERS}
    uniform = {n: sum(m[n] for m in members.values()) / len(members) for n in members[MEMBERS[0]]}
    for name, task in tasks.items():
        assert found["uniform", "", name] == pytest.approx(soups_accuracy(uniform, task))
        for member, state in members.items():
            assert found["members", member, name] == pytest.approx(soups_accuracy(state, task))
    assert len(set(found.values())) > 4, "the members must differ for this to prove anything"


def test_the_head_is_scaled_as_what_is_outside_the_blocks(tmp_path: Path, soup: Path) -> None:
    members = [word for name in MEMBERS for word in ("--expert", str(soup / f"{name}.pt"))]
    out = tmp_path / "merged.safetensors"
    recipe = ("--method", "average", "--scaling", "linear", "--alpha", 0.25, "--beta", 0.75)
    status, output = Lines(tmp_path, {})("merge", "--base", soup / "model_0.pt", *members, *recipe, "-o", out)
    assert status == 0, output
    merged, theta_0 = load_file(out), torch.load(soup / "model_0.pt")
    states = [torch.load(soup / f"{name}.pt") for name in MEMBERS]
    blocks = "model.visual.transformer.resblocks"
    scales = {"classification_head.weight": 0.25, f"{blocks}.0.ln_1.weight": 0.25, f"{blocks}.7.ln_1.weight": 1.0}
    for name, scale in scales.items():
        step = sum(state[name] - theta_0[name] for state in states) / len(states)
        torch.testing.assert_close(merged[name], theta_0[name] + scale * step)
