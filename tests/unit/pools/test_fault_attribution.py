"""Proves that a loss counts for the request being evaluated, not for one behind it, nor for one on a lost node."""

import pytest

from pipeline.errors import WorkersLostError
from pipeline.messages import EvalRequest
from pipeline.pools.fault_attribution import LossCounter, SuspectRequests
from pipeline.recipe import Recipe


def request(shard: int, candidate: str = "c") -> EvalRequest:
    return EvalRequest(Recipe.make("sum"), candidate, "cats", "val", shard, shard, shard + 1)


def test_a_request_behind_is_suspect_but_its_losses_do_not_count() -> None:
    suspects = SuspectRequests[EvalRequest](retries=1)
    for _ in range(2):
        suspects.actor_lost([[request(0)], [request(1)]], "node", 1.0)
    assert request(0) in suspects and request(1) in suspects and request(2) not in suspects
    assert (suspects.losses_over_limit(request(0)), suspects.losses_over_limit(request(1))) == (2.0, 0.0)
    assert suspects.give_up(request(0)) == ["node", "node"] and suspects.give_up(request(0)) == []


def test_a_message_of_several_is_taken_apart_and_no_request_is_charged() -> None:
    suspects = SuspectRequests[EvalRequest](retries=1)
    several, behind = [request(0), request(1)], [request(2), request(3)]
    suspects.actor_lost([several, behind], "node", 1.0)
    assert all(r in suspects and not suspects.losses_over_limit(r) for r in (*several, *behind))
    for _ in range(2):
        suspects.actor_lost([[request(1)]], "node", 1.0)
    assert suspects.losses_over_limit(request(1)) == 2.0
    cut = SuspectRequests[EvalRequest](retries=0)
    cut.actor_lost([several], "node", 0.25)
    assert request(0) not in cut and cut.losses_over_limit(request(0)) == 0.25, "a lost node ends in the end"


def test_after_two_deadly_requests_others_of_the_candidate_get_one_try_and_a_lost_node_is_not_a_try() -> None:
    suspects = SuspectRequests[EvalRequest](retries=3)
    for shard in (0, 1):
        for _ in range(4):
            suspects.actor_lost([[request(shard)]], "node", 1.0)
        suspects.give_up(request(shard))
    for _ in range(3):
        suspects.actor_lost([[request(2)]], "node", 0.25)
    assert not suspects.losses_over_limit(request(2))
    suspects.actor_lost([[request(3)]], "node", 1.0)
    suspects.actor_lost([[request(3, "other")]], "node", 1.0)
    assert suspects.losses_over_limit(request(3)) == 1.0 and not suspects.losses_over_limit(request(3, "other"))


def test_losses_attributed_to_a_request_do_not_count_for_a_node() -> None:
    losses = LossCounter()
    for node in ("a", "b", "a"):
        losses.add(node, "worker", "gone", 2)
    losses.attribute_to_request("c", ["a", "b"])
    assert (losses.on("a"), losses.on("b")) == (1, 0)
    losses.answered("a")
    assert losses.on("a") == 0


@pytest.mark.parametrize(("answered", "candidates"), [(False, 3), (True, 8)])
def test_one_deadly_candidate_after_the_other_ends_the_pool(answered: bool, candidates: int) -> None:
    losses = LossCounter()
    if answered:
        losses.answered("a")
    for i in range(candidates):
        losses.attribute_to_request(f"c{i}", [])
        losses.attribute_to_request(f"c{i}", [])
    with pytest.raises(WorkersLostError, match="workers die of every candidate"):
        losses.attribute_to_request("one more", [])


def test_too_many_losses_in_a_row_end_the_pool() -> None:
    losses = LossCounter()
    for _ in range(8):
        losses.add("a", "worker-0", "gone", 1)
    with pytest.raises(WorkersLostError, match="9 workers were lost .* worker-0: gone"):
        losses.add("a", "worker-0", "gone", 1)
