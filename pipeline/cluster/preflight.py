"""Before workers start on a cluster: every node has the Python and the packages of the driver."""

import logging
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.capacity import Node
from pipeline.cluster.nodes import alive_nodes
from pipeline.errors import describe
from pipeline.versions import differences, versions_here

log = logging.getLogger(__name__)

#: Seconds for all nodes to answer; the first process of a node takes some to start.
_LIMIT = 60.0
#: What the driver alone uses.
_NOT_ON_WORKERS = ("moocore", "optuna")


def versions() -> dict[str, str]:
    """What scores stand on, where this is called."""
    found = {"lines-sweep": metadata.version("lines-sweep"), **versions_here()}
    return {name: version for name, version in found.items() if name not in _NOT_ON_WORKERS}


def check_nodes(address: str) -> None:
    """Compare every node of the Ray that is joined with this process; what is not installed here is no matter.

    A node that does not answer is named and passed over: the pool does without it.

    Raises:
        ValueError: nodes have other versions: a table of node, package, version and what is expected.
    """
    expected, rows = versions(), []
    for node, found in _ask(alive_nodes()).items():
        rows += [(str(node), *row) for row in _differences(expected, found)]
    if rows:
        raise ValueError(
            f"--address {address}: nodes have other versions than this machine, which would make other scores:\n"
            f"{_table(rows)}\nInstall the same on every node: pip install -c constraints.txt -e ."
        )


def _differences(expected: Mapping[str, str], found: Mapping[str, str] | str) -> list[tuple[str, str, str]]:
    """Package, what a node has, what is expected; of a node that could not even tell, why."""
    if isinstance(found, str):
        return [("lines-sweep", found, expected["lines-sweep"])]
    return differences(expected, found)


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    told = [("node", "package", "has", "expected"), *rows]
    widths = [max(map(len, column)) for column in zip(*told, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in told)
    return "\n".join(line.rstrip() for line in lines)


def _ask(nodes: list[Node]) -> dict[Node, dict[str, str] | str]:
    """What each node has; of one that cannot run this code, the error."""
    remote: Any = ray.remote(versions)
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
            _pass_over(refs[ref], describe(error))
    for ref in silent:
        ray.cancel(ref, force=True)
        _pass_over(refs[ref], f"it started no process within {_LIMIT:.0f} s")
    return found


def _pass_over(node: Node, why: str) -> None:
    log.warning("node %s does not answer (%s): its versions were not compared", node, why)
