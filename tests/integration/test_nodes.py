"""Proves, on real raylets, that all requests are answered while nodes join, leave, are slow or broken."""

import functools
import logging
import os
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from toy import IDENTITY, ToyEvaluator, toy_spec
from toy_nodes import Nodes, NodeToy, Noted, cluster_of_nodes

from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.preflight import check_nodes
from pipeline.cluster.worker_shapes import actor_shape
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger
from pipeline.run.progress import RunProgress
from pipeline.run.run import run
from pipeline.spec.resources import PerWorker, Resources

pytestmark = pytest.mark.cluster

AUTO = ActorShape(1, elastic=True)
#: Seconds: far more than any step here takes, far less than a slow node takes.
LONG = 120.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of_nodes({"num_cpus": 1}) as found:
        yield found


def requests(count: int) -> list[EvalRequest]:
    ledger = Ledger(IDENTITY, 10, {})
    recipes = [Recipe.make("sum", "linear", 0.01 * i, 0.5) for i in range(count)]
    return [r for recipe in recipes for r in ledger.requests(recipe, ["cats"], "val")]


def drain(pool: Noted, wanted: list[EvalRequest]) -> list[ShardScore | Failure]:
    """Return all answers; each must be there once."""
    deadline = time.monotonic() + LONG
    while len(pool.answers) < len(wanted) and time.monotonic() < deadline:
        pool.wait(timeout=1.0)
    assert sorted(a.request.key for a in pool.answers) == sorted(r.key for r in wanted)
    return pool.answers


def loaded(pool: Noted, count: int) -> None:
    """Wait, while requests are evaluated, until `count` workers have loaded."""
    deadline = time.monotonic() + LONG
    while len(pool.workers) < count and time.monotonic() < deadline:
        pool.wait(timeout=0.2)
    assert len(pool.workers) == count


def test_a_node_that_joins_in_mid_run_gets_work_and_one_that_is_killed_costs_nothing(
    nodes: Nodes, tmp_path: Path
) -> None:
    grid = {"grid": [0.0, 0.5, 1.0]}
    arm = {"edit": "each_expert", "scaling": {"function": "linear", "alpha": grid, "beta": "1 - alpha"}}
    plan = make_plan(toy_spec(arms={"LiNeS": arm}, controls={"kinds": []}))
    run(plan, IDENTITY, tmp_path / "undisturbed", lambda: LocalPool(ToyEvaluator()), None)
    pools: list[Noted] = []
    events: list[str] = []
    node = None

    def open_pool() -> Noted:
        pools.append(Noted(functools.partial(NodeToy, delay=0.1), AUTO))
        return pools[-1]

    def disturb(progress: RunProgress) -> None:
        nonlocal node
        if not events and progress.shards_done >= 5:
            node = nodes.add(num_cpus=1)
            events.append("joined")
        if events == ["joined"] and pools[0].answered_by("worker-1") >= 3:
            nodes.remove(node)
            events.append("killed")

    run(plan, IDENTITY, tmp_path / "disturbed", open_pool, None, disturb)
    assert events == ["joined", "killed"]
    for table in ("candidates.parquet", "scores.parquet", "samples/dogs.parquet"):
        disturbed, undisturbed = ((tmp_path / run / table).read_bytes() for run in ("disturbed", "undisturbed"))
        assert disturbed == undisturbed, table


def test_requests_of_a_killed_node_are_answered_before_ray_gives_it_up(nodes: Nodes) -> None:
    """Ray takes seconds for that; meanwhile others have their own candidates, which must not come first."""
    node = nodes.add(num_cpus=1)
    pool = Noted(functools.partial(NodeToy, delay=0.3), AUTO)
    pool.submit(requests(60))
    loaded(pool, 2)
    (victim,) = (actor for actor in pool.actors if actor.node == node.node_id)
    jobs = [job for job in victim.outstanding.values() if job is not None]
    asked = {request.key for job in jobs for request in job.requests}
    nodes.remove(node)
    deadline = time.monotonic() + LONG
    while not asked <= {a.request.key for a in pool.answers} and time.monotonic() < deadline:
        pool.wait(timeout=1.0)
    assert asked and victim in pool.actors, "it has not been given up yet"
    pool.close()


def test_requests_of_a_slow_node_are_copied(nodes: Nodes, tmp_path: Path) -> None:
    with nodes.joined(num_cpus=1, env_vars={"TOY_SLOW": str(tmp_path / "asleep")}):
        pool = Noted(functools.partial(NodeToy, delay=0.3), AUTO)
        pool.submit(requests(3))
        answers = drain(pool, requests(3))
        pool.close()
    assert (tmp_path / "asleep").exists(), "the slow node was never asked"
    assert all(isinstance(a, ShardScore) for a in answers)


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"TOY_FULL": "1"}, "could not load: OSError: [Errno 28] No space left on device: '/cache/base'; free some"),
        ({"TOY_OTHER": "more"}, "its checkpoints differ from the run's: more, not toy"),
        ({"TOY_DEADLY": "1"}, "workers were lost there without an answer"),
    ],
)
def test_a_node_on_which_nothing_works_is_excluded_and_reported_once(
    nodes: Nodes, caplog: pytest.LogCaptureFixture, environment: dict[str, str], cause: str
) -> None:
    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if "gets no more workers" in r.getMessage()]

    with nodes.joined(num_cpus=1, env_vars=environment) as node, caplog.at_level(logging.WARNING):
        pool = Noted(NodeToy, AUTO, check=IDENTITY.check)
        asked, deadline = 0, time.monotonic() + LONG
        while not warnings() and time.monotonic() < deadline:  # work for as long as that takes
            if len(pool.answers) >= len(requests(asked)) - 3:
                asked += 1
                pool.submit(requests(asked)[len(requests(asked - 1)) :])
            pool.wait(timeout=1.0)
        drain(pool, requests(asked))
        pool.close()
    assert len(warnings()) == 1 and f"127.0.0.1 ({node.node_id[:8]})" in warnings()[0] and cause in warnings()[0]
    assert all(isinstance(a, ShardScore) for a in pool.answers)


def test_a_fixed_number_of_workers_waits_for_nodes(nodes: Nodes) -> None:
    pool = Noted(functools.partial(NodeToy, delay=0.1), ActorShape(3))
    pool.submit(requests(40))
    loaded(pool, 1)
    with nodes.joined(num_cpus=2):
        loaded(pool, 3)
    pool.close()


def test_fractions_of_gpus_fit_on_their_nodes(nodes: Nodes) -> None:
    with nodes.joined(num_cpus=8, num_gpus=2):
        shape = actor_shape(Resources(per_worker=PerWorker(num_gpus=0.4)))
        assert (shape.workers, shape.elastic) == (4, True)  # not 5, of which one would lie on two GPUs
        pool = Noted(functools.partial(NodeToy, delay=0.1), shape)
        pool.submit(requests(40))
        loaded(pool, 4)
        pool.close()


def test_a_node_with_another_version_of_a_package_is_shown_in_a_table(nodes: Nodes, tmp_path: Path) -> None:
    check_nodes("auto")
    for name in ("open_clip_torch", "torch"):  # what pip writes: the node's Python finds these first
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    with (
        nodes.joined(num_cpus=1, env_vars={"PYTHONPATH": path}) as node,
        pytest.raises(ValueError, match="nodes have other versions") as found,
    ):
        check_nodes("auto")
    heads, *rows = str(found.value).splitlines()[1:-1]
    assert heads.split() == ["node", "package", "has", "expected"]
    expected = {p: metadata.version(p).partition("+")[0] for p in ("open_clip_torch", "torch")}
    assert [row.split() for row in rows] == [
        ["127.0.0.1", f"({node.node_id[:8]})", package, "1.0", version] for package, version in expected.items()
    ]
    assert "pip install -c constraints.txt" in str(found.value)
