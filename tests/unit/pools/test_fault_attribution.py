"""Proves who is blamed for lost actors: a request that was evaluated, not the one behind it, nor one on a lost node."""

import pytest

from pipeline.errors import WorkersLostError
from pipeline.messages import EvalRequest
from pipeline.pools.fault_attribution import Deaths, Suspicion
from pipeline.recipe import Recipe


def request(shard: int, candidate: str = "c") -> EvalRequest:
    return EvalRequest(Recipe.make("sum"), candidate, "cats", "val", shard, shard, shard + 1)


def test_the_request_behind_is_suspected_and_not_blamed() -> None:
    suspicion = Suspicion[EvalRequest](retries=1)
    for _ in range(2):
        suspicion.lost([request(0), request(1)], "node", 1.0)
    assert request(0) in suspicion and request(1) in suspicion and request(2) not in suspicion
    assert (suspicion.too_often(request(0)), suspicion.too_often(request(1))) == (2.0, 0.0)
    assert suspicion.condemn(request(0)) == ["node", "node"] and suspicion.condemn(request(0)) == []


def test_after_two_deadly_requests_of_a_candidate_its_others_get_one_try_which_the_end_of_a_node_is_not() -> None:
    suspicion = Suspicion[EvalRequest](retries=3)
    for shard in (0, 1):
        for _ in range(4):
            suspicion.lost([request(shard)], "node", 1.0)
        suspicion.condemn(request(shard))
    for _ in range(3):
        suspicion.lost([request(2)], "node", 0.25)
    assert not suspicion.too_often(request(2))
    suspicion.lost([request(3)], "node", 1.0)
    suspicion.lost([request(3, "other")], "node", 1.0)
    assert suspicion.too_often(request(3)) == 1.0 and not suspicion.too_often(request(3, "other"))


def test_deaths_that_a_request_is_to_blame_for_are_held_against_no_node() -> None:
    deaths = Deaths()
    for node in ("a", "b", "a"):
        deaths.add(node, "worker", "gone", 2)
    deaths.pardon("c", ["a", "b"])
    assert (deaths.on("a"), deaths.on("b")) == (1, 0)
    deaths.answered("a")
    assert deaths.on("a") == 0


@pytest.mark.parametrize(("answered", "candidates"), [(False, 3), (True, 8)])
def test_one_deadly_candidate_after_the_other_is_no_fault_of_theirs(answered: bool, candidates: int) -> None:
    deaths = Deaths()
    if answered:
        deaths.answered("a")
    for i in range(candidates):
        deaths.pardon(f"c{i}", [])
        deaths.pardon(f"c{i}", [])
    with pytest.raises(WorkersLostError, match="workers die of every candidate"):
        deaths.pardon("one more", [])


def test_too_many_deaths_in_a_row_end_the_pool() -> None:
    deaths = Deaths()
    for _ in range(8):
        deaths.add("a", "worker-0", "gone", 1)
    with pytest.raises(WorkersLostError, match="9 workers were lost .* worker-0: gone"):
        deaths.add("a", "worker-0", "gone", 1)
