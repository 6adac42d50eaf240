"""Proves how many actors fit on nodes: each on one node, and its part of a GPU on one GPU."""

import pytest

from pipeline.cluster.capacity import ActorShape, Node, count_fitting


def node(cpus: float, gpus: float = 0, name: str = "n") -> Node:
    return Node(name, "10.0.0.1", cpus, gpus)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "expected"),
    [
        ([node(3), node(3)], 2, 0, 2),  # 6 CPUs in all, but one is left over on each node
        ([node(8, 2)], 1, 0.4, 4),  # 2 / 0.4 would be 5
        ([node(8, 1), node(8, 1)], 1, 0.6, 2),  # 2 / 0.6 would be 3
        ([node(8, 3)], 1, 2, 1),
        ([node(2, 8)], 1, 1, 2),
        ([node(100, 1)], 1, 0.2, 5),
        ([node(100, 1)], 1, 0.1, 10),
        ([node(16)], 1, 0, 16),
        ([node(1)], 0.1, 0, 10),
        ([node(16)], 1, 1, 0),
        ([], 1, 0, 0),
    ],
)
def test_actors_are_counted_node_by_node(nodes: list[Node], cpus: float, gpus: float, expected: int) -> None:
    assert count_fitting(nodes, ActorShape(1, cpus, gpus)) == expected


def test_resources_are_reserved_for_another_pool() -> None:
    rewards = ActorShape(2, 0, 0.1)
    nodes = [node(8, 1), node(8, 1)]
    assert count_fitting(nodes, ActorShape(1, 1, 1, reserved=rewards)) == 1, "the rewards share a GPU"
    assert count_fitting(nodes, ActorShape(1, 1, 0.8, reserved=rewards)) == 2, "and a worker fits on their GPU"
    assert count_fitting(nodes[:1], ActorShape(1, 1, 1, reserved=rewards)) == 0
    assert count_fitting([node(4)], ActorShape(1, 1, 0, reserved=ActorShape(3, 1, 0))) == 1
