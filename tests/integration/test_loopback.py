"""Proves that all processes of a local Ray listen on loopback only."""

from ipaddress import ip_address

import psutil
import pytest
from toy import IDENTITY, ToyEvaluator
from toy_nodes import TOYS

from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.session import local_ray
from pipeline.messages import ShardScore
from pipeline.pools.ray_pool import RayPool
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger


@pytest.mark.cluster
def test_no_process_of_ours_listens_on_anything_but_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", TOYS)
    with local_ray(num_cpus=1):
        pool = RayPool(ToyEvaluator, ActorShape(workers=1))
        pool.submit(Ledger(IDENTITY, 1000, {}).requests(Recipe.make("sum"), ["cats"], "val"))
        assert isinstance(pool.wait()[0], ShardScore)
        ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [(p.name(), c) for p in ours for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        pool.close()
    assert len(sockets) >= 3, "Ray has servers"
    addresses = {(name, c.laddr.ip.removeprefix("::ffff:")) for name, c in sockets}  # IPv4 as an IPv6 socket shows it
    assert {(name, ip) for name, ip in addresses if not ip_address(ip).is_loopback} == set()
