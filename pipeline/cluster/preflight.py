"""Before workers start on a cluster: compare the Python and the packages of every node with the driver's."""

import logging
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.capacity import Node
from pipeline.cluster.nodes import alive_nodes
from pipeline.errors import describe
from pipeline.versions import differences, worker_versions

log = logging.getLogger(__name__)

#: Seconds for all nodes to answer; the first process of a node takes some to start.
_LIMIT = 60.0


def check_nodes(address: str) -> None:
    """Compare every node of the connected cluster with this process; packages that are not installed here are skipped.

    A node that does not answer gets a warning only: the pool does without it.

    Raises:
        ValueError: if nodes have other versions, with a table of node, package, version and expected version.
    """
    expected, rows = worker_versions(), []
    for node, found in _ask(alive_nodes()).items():
        if isinstance(found, str):
            rows.append((str(node), "lines-sweep", found, expected["lines-sweep"]))
        else:
            rows += [(str(node), *row) for row in differences(expected, found)]
    if rows:
        raise ValueError(
            f"--address {address}: nodes have other versions than this machine, which would change scores:\n"
            f"{_table(rows)}\nInstall the same on every node: pip install -c constraints.txt -e ."
        )


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    rows = [("node", "package", "has", "expected"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _ask(nodes: list[Node]) -> dict[Node, dict[str, str] | str]:
    """Return each node's versions, or the error of a node that cannot run this code."""
    remote: Any = ray.remote(worker_versions)
    refs = {
        remote.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(): node
        for node in nodes
    }
    done, silent = ray.wait(list(refs), num_returns=len(refs), timeout=_LIMIT) if refs else ([], [])
    found: dict[Node, dict[str, str] | str] = {}
    for ref in done:
        try:
            found[refs[ref]] = ray.get(ref)
        except RayTaskError as error:
            found[refs[ref]] = describe(error.cause if isinstance(error.cause, BaseException) else error)
        except RayError as error:
            _warn(refs[ref], describe(error))
    for ref in silent:
        ray.cancel(ref, force=True)
        _warn(refs[ref], f"it started no process within {_LIMIT:.0f} s")
    return found


def _warn(node: Node, why: str) -> None:
    log.warning("node %s does not answer (%s): its versions were not compared", node, why)
