"""Nodes join, leave, are slow or broken in mid-run, on real raylets: all is answered, the tables are the same."""

import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import IDENTITY, ToyEvaluator, toy_spec
from toy_nodes import Nodes, NodeToy, Noted, cluster_of_nodes

from pipeline.driver import Progress
from pipeline.ledger import Ledger
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.plan import make_plan
from pipeline.pool import LocalPool
from pipeline.ray_pool import ActorShape
from pipeline.recipe import Recipe
from pipeline.run import run

pytestmark = pytest.mark.cluster

AUTO = ActorShape(1, elastic=True)
#: Far more than anything here takes, and far less than a slow node takes.
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
    """All answers, each once."""
    answers: list[ShardScore | Failure] = []
    deadline = time.monotonic() + LONG
    while len(answers) < len(wanted) and time.monotonic() < deadline:
        answers += pool.wait(timeout=1.0)
    assert sorted(a.request.key for a in answers) == sorted(r.key for r in wanted)
    return answers


def loaded(pool: Noted, count: int) -> None:
    """Wait, at work, until as many workers have loaded."""
    deadline = time.monotonic() + LONG
    while len(pool.workers) < count and time.monotonic() < deadline:
        pool.wait(timeout=0.2)
    assert len(pool.workers) == count


def test_a_node_that_joins_in_mid_run_gets_work_and_one_that_is_killed_costs_nothing(
    nodes: Nodes, tmp_path: Path
) -> None:
    plan = make_plan(toy_spec())
    run(plan, IDENTITY, tmp_path / "undisturbed", lambda: LocalPool(ToyEvaluator()), None)
    pools: list[Noted] = []
    events: list[str] = []
    node = None

    def open_pool() -> Noted:
        pools.append(Noted(functools.partial(NodeToy, delay=0.2), AUTO))
        return pools[-1]

    def disturb(progress: Progress) -> None:
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


def test_what_a_slow_node_was_given_is_stolen(nodes: Nodes, tmp_path: Path) -> None:
    with nodes.joined(num_cpus=1, env_vars={"TOY_SLOW": str(tmp_path / "asleep")}):
        pool = Noted(functools.partial(NodeToy, delay=0.3), AUTO)
        pool.submit(requests(4))
        drain(pool, requests(4))
        pool.close()
    assert (tmp_path / "asleep").exists(), "the slow node was never asked"


def test_a_node_that_cannot_load_is_left_out_and_named(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    with nodes.joined(num_cpus=2, env_vars={"TOY_FULL": "1"}) as node, caplog.at_level(logging.WARNING):
        pool = Noted(NodeToy, AUTO)
        pool.submit(requests(20))
        drain(pool, requests(20))
        pool.close()
    said = [r.getMessage() for r in caplog.records if "gets no more workers" in r.getMessage()]
    assert len(said) == 1 and f"127.0.0.1 ({node.node_id[:8]})" in said[0]
    assert "could not load: OSError: [Errno 28] No space left on device: '/cache/base'; free some space" in said[0]
