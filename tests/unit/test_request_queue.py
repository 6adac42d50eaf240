"""Proves that every request is handed out once, whoever asks, and that a worker stays with the candidate it holds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages import EvalRequest
from pipeline.recipe import Recipe
from pipeline.request_queue import RequestQueue

RECIPE = Recipe.make("sum")


def request(candidate: str, shard: int) -> EvalRequest:
    return EvalRequest(RECIPE, candidate, "cats", "val", shard, shard, shard + 1)


def requests(*candidates: str, shards: int = 3) -> list[EvalRequest]:
    return [request(c, i) for c in candidates for i in range(shards)]


def filled(*candidates: str) -> RequestQueue:
    queue = RequestQueue()
    queue.put(requests(*candidates))
    return queue


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4)), max_size=8), st.data())
def test_every_request_is_handed_out_once(batches: list[tuple[str, int]], data: st.DataObject) -> None:
    """Also where workers are lost in between and their requests are put back in front."""
    queue, given_out, wanted = RequestQueue(), [], []
    for number, (candidate, count) in enumerate(batches):
        new = [request(candidate, 10 * number + i) for i in range(count)]
        wanted += new
        queue.put(new)
        for worker in data.draw(st.lists(st.sampled_from(["x", "y", "z"]), max_size=5)):
            taken = queue.take(worker)
            if taken is not None and data.draw(st.booleans()):
                queue.forget(worker)
                queue.put_first([taken])
            elif taken is not None:
                given_out.append(taken)
    while (taken := queue.take("x")) is not None:
        given_out.append(taken)
    assert sorted(r.shard for r in given_out) == sorted(r.shard for r in wanted) and len(queue) == 0


def test_a_worker_stays_with_its_candidate_and_others_take_the_next() -> None:
    queue = filled("a", "b", "c")
    order = [(w, r.recipe_id) for w in ("x", "y", "x", "y", "x", "y") if (r := queue.take(w))]
    assert order == [("x", "a"), ("y", "b")] * 3
    assert [r.recipe_id for r in (queue.take("x"), queue.take("y")) if r] == ["c", "c"], "a free worker helps another"


def test_what_a_lost_worker_had_comes_first() -> None:
    queue = filled("a", "b")
    lost = [r for r in (queue.take("x"), queue.take("x")) if r]
    queue.forget("x")
    queue.put_first(reversed(lost))
    assert [queue.take("y") for _ in lost] == lost


def test_length_counts_what_is_pending_and_an_empty_queue_gives_none() -> None:
    queue = filled("a", "b")
    assert len(queue) == 6
    queue.take("x")
    assert len(queue) == 5
    assert RequestQueue().take("x") is None
