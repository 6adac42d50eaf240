"""Proves that a node that lacks the driver's files gets each of them once, whatever the number of its workers."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import ray_nodes
from PIL import Image
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from small_run import TASKS, small_spec, tables

from pipeline.cluster.files.bundle import make_bundle
from pipeline.cluster.files.transfer import FileTransfer, file_transfer
from pipeline.cluster.session import local_ray
from pipeline.cluster.worker_shapes import actor_shape
from pipeline.loading.prepare import prepare
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.pools.ray_pool import RayPool
from pipeline.run.run import run
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.workers.worker import Worker
from tasks.embedded import checkpoint_path


@pytest.fixture
def hidden(tmp_path: Path, experts: dict[str, Path]) -> Path:
    """Base, experts and images in the folder that nodes do not see."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    shutil.copyfile(checkpoint_path("base"), folder / "base.safetensors")
    for name, path in experts.items():
        shutil.copyfile(path, folder / f"{name}.safetensors")
    for i in range(8):
        place = folder / "shapes" / "test" / ("circle" if i % 2 else "square") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (30 * i, 100, 200 - 20 * i)).save(place)
    return folder


@pytest.fixture
def spec(hidden: Path) -> RunSpec:
    found = small_spec({name: hidden / f"{name}.safetensors" for name in TASKS})
    found |= {"base": str(hidden / "base.safetensors"), "ood": {"shapes": str(hidden / "shapes")}, "controls": []}
    return parse_spec({**found, "resources": {"per_worker": {"num_gpus": 0}}})


@pytest.fixture
def cluster() -> Iterator[None]:
    """A head without CPUs: all workers are on nodes that join."""
    if not ray_nodes.permitted():
        pytest.skip("mount namespaces are not permitted here")
    with local_ray(num_cpus=0):
        yield


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_each_file_reaches_each_node_once_and_the_tables_are_those_of_one_machine(
    spec: RunSpec, hidden: Path, decoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
    plan, identity = make_plan(spec), prepare(spec, "cpu", lambda what, done, total: None)
    run(plan, identity, tmp_path / "local", lambda: LocalPool(Worker("local", spec)), None)

    with ray_nodes.nodes(2, hidden, tmp_path) as caches, file_transfer(spec) as fetch:
        assert fetch is not None
        places = [read.experts["clipart"] for read in on_every_node(fetch, spec, 2)]
        first = sent_by(fetch)
        pool = RayPool(partial(Worker, spec=spec, fetch=fetch), actor_shape(spec.resources), check=identity.check)
        run(plan, identity, tmp_path / "cluster", lambda: pool, None)
        assert sent_by(fetch) == first

    assert tables(tmp_path / "cluster") == tables(tmp_path / "local")
    files = [hidden / name for name in ("base.safetensors", "clipart.safetensors", "mnist.safetensors", "shapes")]
    sizes = {str(path): make_bundle(path, "tree").size for path in files}
    assert list(first.values()) == [sizes, sizes]
    assert len(places) == 4 and {Path(place).parents[2] for place in places} == set(caches)
    for cache in caches:
        folders = [path for path in (cache / "shipped").iterdir() if path.is_dir()]
        assert sorted(p.name for folder in folders for p in folder.iterdir()) == sorted(path.name for path in files)
    # A node decodes a set once, and only for shards that it gets: the first may have scored all.
    decoded_sets = [len(list((cache / "images").glob("*.manifest"))) for cache in caches]
    assert 1 <= max(decoded_sets) <= 3


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_nothing_is_sent_to_nodes_that_see_the_files(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with ray_nodes.nodes(1, tmp_path / "other", tmp_path) as caches, file_transfer(spec) as fetch:
        assert fetch is not None
        assert on_every_node(fetch, spec, 1) == [spec] and sent_by(fetch) == {}
    assert not (caches[0] / "shipped").exists()


def on_every_node(fetch: FileTransfer, spec: RunSpec, each: int) -> list[RunSpec]:
    """Return the specs that `each` simultaneous processes get on each node with CPUs."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    remote = ray.remote(lambda: fetch(spec))
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes for _ in range(each)]
    found: list[RunSpec] = ray.get(
        [remote.options(num_cpus=0.4, scheduling_strategy=place).remote() for place in there]
    )
    return found


def sent_by(fetch: FileTransfer) -> dict[str, dict[str, int]]:
    """Return node -> path -> bytes sent."""
    found: dict[str, dict[str, int]] = {}
    for (node, path), count in ray.get(fetch.sender.sent.remote()).items():
        found.setdefault(node, {})[path] = count
    return found
