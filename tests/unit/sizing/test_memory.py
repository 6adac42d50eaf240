"""Proves that a plan's bytes are those that a worker holds, for images, for adapters that stay apart and for merges."""

import gc
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_spec, write_experts
from small_soup import soup_spec, write_soup

from pipeline.loading.experts import load_checkpoints
from pipeline.loading.model import precision_of
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.resident import ResidentModel
from pipeline.messages import COMPLETIONS, EvalRequest
from pipeline.recipe import Recipe
from pipeline.sizing.memory import Load, Part, peak, worker_parts
from pipeline.sizing.model import ModelSize, measure_model
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.workers.completion_worker import CompletionWorker
from pipeline.workers.worker import Worker

_NOT_FOLLOWED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, str, bytes)
#: Parts that are gone when a recipe is set.
_PASSING = ("a combined task vector while it is made", "factors of the candidate, while they are scaled")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soup(tmp_path_factory.mktemp("soup"))


def held(*owners: object) -> int:
    """Return the bytes of all tensors that objects reach."""
    seen, storages, left = set[int](), dict[int, int](), list(owners)
    while left:
        found = left.pop()
        if id(found) in seen or isinstance(found, _NOT_FOLLOWED):
            continue
        seen.add(id(found))
        if isinstance(found, torch.Tensor):
            storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
        left += gc.get_referents(found)
    return sum(storages.values())


def planned(spec: RunSpec, adapted: bool, combined: int) -> tuple[ModelSize, list[Part]]:
    size = measure_model(spec, SpecSources(spec, spec.experts))
    return size, worker_parts(size, Load(precision_of(spec.backbone).itemsize, adapted, combined, None))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sums_of_adapters_in_place_hold_factors(files: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    spec = parse_spec(soup_spec(backbone={"family": "causal", "model": "sft", "precision": precision}))
    size = measure_model(spec, SpecSources(spec, spec.experts))
    dtype = precision_of(spec.backbone)
    parts = worker_parts(size, Load(dtype.itemsize, False, 5, None, sums=True))
    model, experts = load_checkpoints(spec, torch.device("cpu"))
    deltas, backbone = {e.name: e.delta for e in experts}, model.backbone
    device = torch.device("cpu")
    resident = ResidentModel(backbone.module, backbone.layer_map, model.base.tensors, deltas, device, dtype)
    for place in range(3):
        resident.materialise(Recipe.make("weighted", "linear", 1, 1, (1, 2 + place)))
    assert kept(parts) == pytest.approx(held(resident, backbone.module), rel=0.03)


def kept(parts: list[Part]) -> int:
    return sum(p.size for p in parts if not p.host and p.phase != "reading" and p.what not in _PASSING)


def request(recipe: Recipe, task: str, stop: int = 4) -> EvalRequest:
    return EvalRequest(recipe, repr(recipe), task, "val", 0, 0, stop)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_worker_of_images_holds_the_planned_bytes(tmp_path: Path, precision: str) -> None:
    spec = parse_spec(small_spec(write_experts(tmp_path)))
    spec = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"precision": precision})})
    size, parts = planned(spec, adapted=False, combined=5)
    worker = Worker("local", spec)
    for weights in ((1, 1), (1, 2), (2, 1)):
        worker.evaluate(request(Recipe.make("weighted", "linear", 1, 1, weights), "mnist"))
    worker.resident._gather = None  # it reaches the tasks
    assert kept(parts) == pytest.approx(held(worker.resident, worker.backbone.module), rel=0.02)
    assert size.frozen == pytest.approx(held(worker.backbone) - held(worker.backbone.module), rel=0.02)
    assert peak(parts) > kept(parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "precision", "adapted"),
    [("weighted", "float32", True), ("weighted", "bfloat16", True), ("ties", "bfloat16", False)],
)
def test_a_worker_of_completions_holds_the_planned_bytes(
    files: Path, method: str, precision: str, adapted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    merge: dict[str, Any] = {"method": method, "weights": {"brief": 1, "open": 1}}
    backbone = {"family": "causal", "model": "sft", "precision": precision}
    spec = parse_spec(soup_spec(arms={"soup": {"merge": merge}}, backbone=backbone, controls=[]))
    _, parts = planned(spec, adapted, combined=9)
    worker = CompletionWorker("local", spec)
    for place in range(6):
        params = {"keep": 10 + place} if method == "ties" else {}
        weights = (1, 1) if method == "ties" else (1, 2 + place)
        worker.evaluate(request(Recipe.make(method, "linear", 1, 1, weights, params), COMPLETIONS))
    module = worker._engine._module  # type: ignore[attr-defined]
    assert kept(parts) == pytest.approx(held(worker.policy, module), rel=0.03)
