"""Proves that a worker's scores do not depend on what it held before; LocalPool and RayPool give the same tables."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import TASKS, Lines, small_spec, tables
from toy import IDENTITY as TOY
from toy import ToyEvaluator, toy_spec

from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.session import local_ray
from pipeline.loading.prepare import prepare, prepare_here
from pipeline.loading.spec_sources import SpecSources
from pipeline.messages import Identity, ShardScore, WorkerInfo
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.pools.ray_pool import RayPool
from pipeline.recipe import Recipe
from pipeline.records.journal import read_history
from pipeline.records.ledger import Ledger
from pipeline.run.run import run
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.workers.worker import Worker

A = Recipe.make("single", "linear", 0.3, 0.7, (1, 0))
B = Recipe.make("sum", "quadratic", "auto", 0.5)
ZERO = Recipe.make("zero")


@pytest.fixture
def spec(lines: Lines) -> RunSpec:
    return parse_spec(small_spec(lines.experts))


@pytest.fixture
def identity(spec: RunSpec) -> Identity:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return prepare(spec, device, lambda what, done, total: None)


def scores(worker: Worker, ledger: Ledger, recipe: Recipe) -> list[ShardScore]:
    return [worker.evaluate(r) for r in ledger.requests(recipe, TASKS, "val")]


def weights(worker: Worker) -> list[torch.Tensor]:
    return [p.detach().clone() for p in worker.backbone.module.parameters()]


def test_a_then_b_then_a_gives_the_same_weights_and_scores(spec: RunSpec, identity: Identity) -> None:
    worker, ledger = Worker("local", spec), Ledger(identity, spec.shard_size, {})
    first, held = scores(worker, ledger, A), weights(worker)
    other = scores(worker, ledger, B)
    scores(worker, ledger, ZERO)
    again = scores(worker, ledger, A)
    assert all(torch.equal(x, y) for x, y in zip(held, weights(worker), strict=True))
    for one, two in zip(first, again, strict=True):
        assert one.stats == two.stats and one.alpha == two.alpha == 0.3
        np.testing.assert_array_equal(one.outcomes, two.outcomes)
    assert any((x.outcomes != y.outcomes).any() for x, y in zip(first, other, strict=True)), "B is another model"
    assert 0 < other[0].alpha < 1.5, "equation 2, resolved"


@pytest.mark.skipif(torch.cuda.is_available(), reason="preparation loads on the CPU")
def test_a_worker_takes_what_preparation_of_its_process_has_loaded(
    spec: RunSpec, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(identity, spec.shard_size, {})
    own = scores(Worker("own", spec), ledger, B)
    loaded = prepare_here(spec, lambda what, done, total: None, SpecSources(spec, spec.experts))
    assert loaded.identity == identity
    monkeypatch.delattr("pipeline.workers.worker.load_run")
    for one, two in zip(scores(Worker("taken", spec, loaded=loaded), ledger, B), own, strict=True):
        assert one.stats == two.stats and one.alpha == two.alpha
        np.testing.assert_array_equal(one.outcomes, two.outcomes)


def test_a_worker_holds_what_preparation_found(spec: RunSpec, identity: Identity) -> None:
    info = Worker("one", spec).info()
    identity.check(info)
    assert info.name == "one" and info.fingerprint == identity.fingerprint and len(identity.block_sizes) == 8


def test_preprocessing_is_part_of_a_models_identity(lines: Lines, identity: Identity) -> None:
    """Mean and standard deviation change every score, but no data set's fingerprint."""
    backbone = {
        "family": "open_clip",
        "model": "embedded/tiny-vit",
        "options": {"preprocess": {"std": [0.4, 0.4, 0.4]}},
    }
    other = prepare(parse_spec(small_spec(lines.experts, backbone=backbone)), "cpu", lambda what, done, total: None)
    assert other.checkpoints == identity.checkpoints and other.fingerprint != identity.fingerprint


class OtherNumerics(ToyEvaluator):
    """A worker with another version of torch, for example."""

    def info(self) -> WorkerInfo:
        return replace(super().info(), numerics="other")


def test_no_answer_of_a_worker_that_loaded_something_else_is_kept(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="its numerics differ from the run's: other, not toy"):
        run(make_plan(toy_spec()), TOY, run_folder, lambda: LocalPool(OtherNumerics()), None)
    assert not read_history(run_folder).answers


@pytest.fixture(scope="module")
def cluster(decoded: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))  # for the processes that Ray starts
        with local_ray(num_cpus=2):
            yield


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_two_ray_workers_give_the_tables_of_the_local_pool(
    spec: RunSpec, identity: Identity, run_folder: Path, undisturbed: Path
) -> None:
    make = partial(Worker, spec=spec)
    run(make_plan(spec), identity, run_folder, lambda: RayPool(make, ActorShape(workers=2)), None)
    assert tables(run_folder) == tables(undisturbed)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_a_worker_that_cannot_load_reports_the_cause(spec: RunSpec, identity: Identity, run_folder: Path) -> None:
    """Its file may be missing on one node alone; starting it repeatedly would not help."""
    make = partial(Worker, spec=spec.model_copy(update={"base": "nowhere.safetensors"}))
    with pytest.raises(ValueError, match=r"worker-0 could not load: ValueError: .*nowhere\.safetensors"):
        run(make_plan(spec), identity, run_folder, lambda: RayPool(make, ActorShape(workers=1)), None)
