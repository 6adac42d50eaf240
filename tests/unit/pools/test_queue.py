"""Proves that every request is handed out once, and that a worker stays with the candidate it holds."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from operations import operations

from pipeline.messages import EvalRequest
from pipeline.pools.queue import RequestQueue
from pipeline.recipe import Recipe

RECIPE = Recipe.make("sum")


def request(candidate: str, shard: int) -> EvalRequest:
    return EvalRequest(RECIPE, candidate, "cats", "val", shard, shard, shard + 1)


def requests(*candidates: str, shards: int = 3) -> list[EvalRequest]:
    return [request(c, i) for c in candidates for i in range(shards)]


def filled(*candidates: str) -> RequestQueue:
    queue = RequestQueue()
    queue.put(requests(*candidates))
    return queue


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4)), max_size=8), st.data())
def test_every_request_is_handed_out_once(batches: list[tuple[str, int]], data: st.DataObject) -> None:
    """Also if workers are lost in between and their requests are put back in front."""
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


def test_requests_of_a_lost_worker_come_first() -> None:
    queue = filled("a", "b")
    lost = [r for r in (queue.take("x"), queue.take("x")) if r]
    queue.forget("x")
    queue.put_first(reversed(lost))
    assert [queue.take("y") for _ in lost] == lost


def test_length_counts_pending_requests_and_an_empty_queue_gives_none() -> None:
    queue = filled("a", "b")
    assert len(queue) == 6
    queue.take("x")
    assert len(queue) == 5
    assert RequestQueue().take("x") is None


class Slow:
    """A slow implementation of the rule: looks at every worker and every candidate."""

    def __init__(self) -> None:
        self.pending: list[EvalRequest] = []
        self.order: list[str] = []
        self.held: dict[str, str] = {}

    def put(self, new: list[EvalRequest]) -> None:
        self.pending += new
        self.order += [r.recipe_id for r in new if r.recipe_id not in self.order]

    def put_first(self, new: list[EvalRequest]) -> None:
        for r in new:
            self.pending.insert(0, r)
            self.order = [r.recipe_id, *(c for c in self.order if c != r.recipe_id)]

    def put_last(self, candidate: str) -> None:
        if candidate in self.order:
            self.order = [*(c for c in self.order if c != candidate), candidate]

    def take(self, worker: str) -> EvalRequest | None:
        if not self.order:
            return None
        mine = self.held.get(worker)
        others = {candidate for name, candidate in self.held.items() if name != worker}
        free = [c for c in self.order if c not in others]
        chosen = mine if mine in self.order else (free or self.order)[0]
        assert chosen is not None
        self.held[worker] = chosen
        request = next(r for r in self.pending if r.recipe_id == chosen)
        self.pending.remove(request)
        self.order = [c for c in self.order if any(r.recipe_id == c for r in self.pending)]
        return request

    def forget(self, worker: str) -> None:
        self.held.pop(worker, None)


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "take", "take", "take", "lose", "last"]), st.integers(0, 4)), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
@example([("put", 0), ("put", 1), ("take", 0), ("put", 0), ("take", 1), ("take", 2)]).via("a comes again, behind b")
def test_it_agrees_with_a_slow_implementation_of_the_rule(steps: list[tuple[str, int]]) -> None:
    queue, slow = RequestQueue(), Slow()
    last: dict[str, list[EvalRequest]] = {}
    for number, (what, which) in enumerate(steps):
        worker = f"worker-{which}"
        if what == "put":
            new = [request("abcde"[which], 10 * number + i) for i in range(1 + which % 3)]
            queue.put(new)
            slow.put(new)
        elif what == "take":
            taken = queue.take(worker)
            assert taken == slow.take(worker)
            last.setdefault(worker, []).extend([taken] if taken else [])
        elif what == "last":
            queue.put_last("abcde"[which])
            slow.put_last("abcde"[which])
        else:
            for q in (queue, slow):
                q.forget(worker)
                q.put_first(list(reversed(last.get(worker, [])[-2:])))
            last.pop(worker, None)
        assert len(queue) == len(slow.pending)


def steps_to_empty(workers: int, candidates: int) -> float:
    """Return the operations per request of workers that take turns: `take`, and the queue's length."""
    queue = filled(*(f"{i:05}" for i in range(candidates)))
    names = [f"worker-{i}" for i in range(workers)]

    def work() -> None:
        for i in range(3 * candidates):
            assert len(queue) and queue.take(names[i % workers])

    return operations(work) / (3 * candidates)


def test_a_request_costs_the_same_among_many_workers_and_candidates() -> None:
    few = steps_to_empty(10, 20)
    assert steps_to_empty(300, 600) < 2 * few and steps_to_empty(10, 600) < 2 * few
