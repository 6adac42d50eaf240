"""Proves that statistics of a candidate are those of a bare PyTorch loop, on every worker, after any other."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_resnet_clip import TASKS, VAL, write_all
from torch import Tensor, nn

from pipeline.learning import normalisation
from pipeline.learning.normalisation import Calibration, NormalisedModel
from pipeline.loading.experts import load_checkpoints
from pipeline.loading.identity import identify
from pipeline.loading.prepare import prepare
from pipeline.merging.resident import Materialised
from pipeline.messages import EvalRequest, Identity
from pipeline.recipe import Recipe
from pipeline.spec.load import parse_spec
from pipeline.storage.caches.scores import ScoreCache
from pipeline.workers.worker import Worker
from tasks.base import NonFiniteError
from tasks.batch_norm import is_statistic, statistics
from tasks.vision.clip.architectures import create

MERGE = Recipe.make("sum", "constant", 0.5)
EDIT = Recipe.make("single", "linear", 0.3, 0.5, (0, 1))
ZERO = Recipe.make("zero")
UNSCALED = {task: Recipe.make("single", "constant", 1, 0, tuple(int(t == task) for t in TASKS)) for task in TASKS}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_all(tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def workers(ground: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    """Two workers of one run, whose calibration has three batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINES_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(normalisation, "BATCH", 16)
        yield [Worker(name, parse_spec(ground)) for name in ("one", "two")]


def held(worker: Worker, recipe: Recipe) -> dict[str, Tensor]:
    worker.evaluate(EvalRequest(recipe, "id", TASKS[0], "val", 0, 0, 4))
    return {name: buffer.clone() for name, buffer in worker.backbone.module.named_buffers()}


def stored(path: str, prefix: str) -> dict[str, Tensor]:
    state = load_file(path)
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix) and is_statistic(n)}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_statistics_are_those_of_a_bare_loop(ground: dict[str, Any], workers: list[Worker]) -> None:
    found = held(workers[0], MERGE)
    base, experts = load_file(ground["base"]), [load_file(path) for path in ground["experts"].values()]
    visual = create(ground["backbone"]["model"], {}).model.visual
    visual.load_state_dict({n.removeprefix("visual."): t for n, t in base.items() if n.startswith("visual.")})
    with torch.no_grad():
        for name, parameter in visual.named_parameters():
            theirs = [experts[0][f"visual.{name}"], experts[1][f"module.{name}"]]
            parameter += 0.5 * sum(t - parameter for t in theirs)
    for layer in visual.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    visual.train()
    images = [workers[0]._tasks[task].splits["val"].slice(0, VAL) for task in TASKS]
    with torch.no_grad():
        for start in range(0, VAL, 8):  # eight images of each task
            pixels = torch.cat([of_task[start : start + 8] for of_task in images])
            visual(workers[0].backbone.preprocess.normalise(pixels, torch.float32))
    expected = statistics(visual)
    assert expected.keys() == {n for n in found if is_statistic(n)} and len(expected) > 20
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    assert (found["layer4.0.bn1.running_var"] > 0).all()


def test_two_workers_in_another_order_have_the_same_bits(workers: list[Worker]) -> None:
    one = [held(workers[0], recipe) for recipe in (MERGE, EDIT, ZERO, MERGE)]
    two = [held(workers[1], recipe) for recipe in (UNSCALED["frames"], EDIT, MERGE)]
    assert same(one[0], one[3]) and same(one[0], two[2]) and same(one[1], two[1])
    assert not same(one[0], one[1]) and not same(one[0], one[2])


def test_the_base_and_unscaled_experts_keep_the_statistics_of_their_files(
    ground: dict[str, Any], workers: list[Worker]
) -> None:
    held(workers[0], MERGE)
    for recipe, path, prefix in (
        (ZERO, ground["base"], "visual."),
        (UNSCALED["colours"], ground["experts"]["colours"], "visual."),
        (UNSCALED["frames"], ground["experts"]["frames"], "module."),
    ):
        found = {n: t for n, t in held(workers[0], recipe).items() if is_statistic(n)}
        assert same(found, stored(path, prefix))


def test_counters_and_momenta_stay(workers: list[Worker]) -> None:
    assert {int(t) for n, t in held(workers[0], MERGE).items() if n.endswith("num_batches_tracked")} == {0}
    layers = [m for m in workers[0].backbone.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {layer.momentum for layer in layers} == {0.1} and not any(layer.training for layer in layers)


def test_a_statistic_that_overflows_is_a_failure_of_the_candidate(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(self: Calibration) -> None:
        self.backbone.module.bn1.running_var.fill_(torch.inf)

    monkeypatch.setattr(Calibration, "measure", overflow)
    with pytest.raises(NonFiniteError, match=r"non-finite statistics of batch normalisation in bn1\.running_var"):
        held(workers[0], Recipe.make("sum", "constant", 0.4))


class TestIdentity:
    def of(self, ground: dict[str, Any], **changes: Any) -> Identity:
        return prepare(parse_spec({**ground, **changes}), "cpu", lambda what, done, total: None)

    def test_names_the_samples_and_is_another_for_others(
        self, ground: dict[str, Any], workers: list[Worker], tmp_path: Path
    ) -> None:
        own = self.of(ground)
        own.check(workers[0].info())
        assert own.calibration == dict.fromkeys(TASKS, VAL)
        assert Identity.from_json(json.loads(json.dumps(own.to_json()))) == own
        fewer = self.of(ground, limits={"val": VAL - 1, "test": 20})
        swapped = self.of(ground, tasks=dict(reversed(ground["tasks"].items())))
        assert len({i.fingerprint for i in (own, fewer, swapped)}) == 3
        caches = [ScoreCache(tmp_path, i)._records._path for i in (own, fewer)]
        assert caches[0] != caches[1]

    def test_statistics_of_an_experts_file_are_part_of_it(self, ground: dict[str, Any], tmp_path: Path) -> None:
        state = load_file(ground["experts"]["colours"])
        state["visual.bn1.running_mean"] += 0.5
        save_file(state, tmp_path / "other.safetensors")
        experts = {**ground["experts"], "colours": str(tmp_path / "other.safetensors")}
        own, other = self.of(ground), self.of(ground, experts=experts)
        assert own.checkpoints["colours"] != other.checkpoints["colours"] and own.fingerprint != other.fingerprint

    def test_two_samples_are_needed(self, ground: dict[str, Any]) -> None:
        one = {"tasks": {"colours": ground["tasks"]["colours"]}, "targets": dict.fromkeys(TASKS, "colours")}
        with pytest.raises(ValueError, match=r"two or more are needed, got 1; raise limits\.val"):
            self.of(ground, **one, limits={"val": 1, "test": 20})

    def test_models_without_batch_normalisation_keep_theirs(self) -> None:
        spec = parse_spec(
            {
                "name": "vit",
                "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
                "base": "embedded/base",
                "experts": {"mnist": "embedded/mnist"},
                "tasks": ["mnist"],
                "arms": {"half": {"edit": "mnist", "scaling": {"alpha": 0.5}}},
            }
        )
        model, experts = load_checkpoints(spec, torch.device("cpu"))
        (expert,) = experts
        task = SimpleNamespace(fingerprint="data", metric="accuracy", num_samples=lambda split: 1)
        identity = identify(spec, model, {"mnist": expert.fingerprint}, {"mnist": task}, torch.device("cpu"))
        assert expert.statistics == {} and not identity.calibration and "calibration" not in identity.to_json()
        assert (identity.fingerprint, expert.fingerprint) == ("d06e6e5ea717a7e2", "78c38e3910778f5d")


def test_an_expert_without_statistics_has_the_bases(
    ground: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = load_file(ground["experts"]["colours"])
    save_file({n: t for n, t in state.items() if not is_statistic(n)}, tmp_path / "bare.safetensors")
    spec = parse_spec({**ground, "experts": {"colours": str(tmp_path / "bare.safetensors")}})
    with caplog.at_level(logging.WARNING):
        worker = Worker("bare", spec)
    assert (
        "experts.colours: " in caplog.text and "holds no statistics of batch normalisation for bn1.run" in caplog.text
    )
    found = held(worker, Recipe.make("single", "constant", 1, 0, (1,)))
    assert same({n: t for n, t in found.items() if is_statistic(n)}, stored(ground["base"], "visual."))


class Sums:
    """A task of vectors that gives no images, on which a plug-in's module is run directly."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def evaluate(self, backbone: Any, split: str, start: int, stop: int) -> None:
        assert split == "val"
        backbone.module["used"](self.inputs[start:stop])


def test_a_plug_in_without_images_is_measured_by_its_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalisation, "BATCH", 4)
    module, unused = nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3).eval()
    inputs = {name: torch.randn(count, 3) for name, count in (("a", 6), ("b", 4))}
    tasks: Any = {name: Sums(rows) for name, rows in inputs.items()}
    backbone: Any = SimpleNamespace(module=nn.ModuleDict({"used": module, "unused": unused}))
    calibration = Calibration(backbone, tasks, {"a": 6, "b": 4})
    rebuilt = SimpleNamespace(materialise=lambda recipe: Materialised(0.5, ""))
    model = NormalisedModel(rebuilt, calibration, [{}, {}])  # type: ignore[arg-type]
    model.materialise(MERGE)
    pieces = [inputs["a"][:4], inputs["a"][4:], inputs["b"]]
    variance = sum(len(p) * p.var(0) for p in pieces) / 10
    torch.testing.assert_close(module.running_mean, torch.cat(pieces).mean(0))
    torch.testing.assert_close(module.running_var, variance)
    assert model.measured and torch.equal(unused.running_var, torch.ones(3))
    model.materialise(ZERO)
    assert not model.measured and torch.equal(module.running_var, torch.ones(3))
    np.testing.assert_array_equal(module.running_mean, np.zeros(3))
