"""Proves that every kind of task satisfies `tasks.base.Task`: additive shards, paired outcomes, an identity."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.base import ScoresRows, Task, TaskRequest
from tasks.loading import load_task
from tasks.plugins import load_plugins
from tasks.stats import Stats, shards
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import OpenClipBackbone, build

OLD_PLUGIN = Path(__file__).parents[1] / "data" / "old_plugin.py"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "adding-a-task.md"


@pytest.fixture(scope="module")
def backbone() -> OpenClipBackbone:
    torch.manual_seed(0)
    state = create("embedded/tiny-vit", {}).model.state_dict()
    return build("embedded/tiny-vit", state, torch.device("cpu"), torch.float32)


def embedded(tmp_path: Path) -> TaskRequest:
    return TaskRequest("digits", "embedded/mnist", {"val": 100, "test": 150})


def folder(tmp_path: Path) -> TaskRequest:
    rng = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "images" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    return TaskRequest("letters", str(tmp_path / "images"), {}, {"val_fraction": 0.5, "batch_size": 8})


def guide(tmp_path: Path) -> TaskRequest:
    return TaskRequest("stripes", "stripes")


def old_plugin(tmp_path: Path) -> TaskRequest:
    return TaskRequest("stripes", "stripes-old-imports")


@pytest.fixture(scope="module", autouse=True)
def _plugins(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load the guide's example from a user's file, and an old plug-in that imports modules by their former names."""
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)[0]
    file = tmp_path_factory.mktemp("plugin") / "stripes.py"
    file.write_text(code)
    load_plugins([str(file)])
    with pytest.warns(FutureWarning, match="tasks.classification has moved: use `from tasks.vision import zero_shot`"):
        load_plugins([str(OLD_PLUGIN)])


@pytest.fixture(params=[embedded, folder, guide, old_plugin])
def request_of(request: pytest.FixtureRequest, tmp_path: Path) -> TaskRequest:
    make: Callable[[Path], TaskRequest] = request.param
    return make(tmp_path)


@pytest.fixture
def task(request_of: TaskRequest, backbone: OpenClipBackbone) -> Task:
    return load_task(request_of, backbone)


def test_shards_add_up_to_the_whole(task: Task, backbone: OpenClipBackbone) -> None:
    for split in ("val", "test"):
        n = task.num_samples(split)
        whole = task.evaluate(backbone, split, 0, n)
        parts = [task.evaluate(backbone, split, start, stop) for start, stop in shards(n, 32)]
        assert sum((p.stats for p in parts), Stats()) == whole.stats
        assert np.array_equal(np.concatenate([p.outcomes for p in parts]), whole.outcomes)


def test_any_rows_have_the_outcomes_of_the_whole(task: Task, backbone: OpenClipBackbone) -> None:
    if not isinstance(task, ScoresRows):  # a plug-in need not be one; its candidates are then scored in full
        return
    n, size = task.num_samples("val"), task.together("val")
    whole = task.evaluate(backbone, "val", 0, n)
    rows = np.random.default_rng(0).permutation(n)[: n // 2]
    part = task.evaluate_rows(backbone, "val", rows.tolist())
    assert size >= 1 and np.array_equal(part.outcomes, whole.outcomes[rows]) and part.stats.n == len(rows)
    for wrong in ([], [n], [-1, 2]):
        with pytest.raises(ValueError, match=f"must be from 0 to {n - 1}"):
            task.evaluate_rows(backbone, "val", wrong)


def test_outcomes_agree_with_the_sums(task: Task, backbone: OpenClipBackbone) -> None:
    result = task.evaluate(backbone, "test", 1, 12)
    assert result.outcomes.shape == (11,) and result.outcomes.dtype in (np.bool_, np.float32)
    assert result.stats.n == 11
    assert result.stats.total == pytest.approx(float(result.outcomes.sum()))
    assert result.stats.squares == pytest.approx(float((result.outcomes.astype(np.float64) ** 2).sum()))


def test_scoring_again_gives_the_same_bits(task: Task, backbone: OpenClipBackbone) -> None:
    first, second = (task.evaluate(backbone, "val", 0, task.num_samples("val")) for _ in range(2))
    assert first.stats == second.stats and np.array_equal(first.outcomes, second.outcomes)


def test_loading_again_gives_the_same_identity(task: Task, request_of: TaskRequest, backbone: OpenClipBackbone) -> None:
    again = load_task(request_of, backbone)
    assert (again.name, again.metric, again.fingerprint) == (task.name, task.metric, task.fingerprint)
    assert task.name == request_of.name and len(task.fingerprint) == 16
    assert [again.num_samples(s) for s in ("val", "test")] == [task.num_samples(s) for s in ("val", "test")]


def test_a_range_outside_the_split_is_refused(task: Task, backbone: OpenClipBackbone) -> None:
    n = task.num_samples("test")
    for start, stop in ((0, n + 1), (-1, 3), (3, 3)):
        with pytest.raises(ValueError, match=r"is not within its \d+ samples"):
            task.evaluate(backbone, "test", start, stop)
