"""Proves that packed answers equal the stored ones, in a dictionary that behaves like any other."""

import tracemalloc
from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.recipe import Recipe
from pipeline.records.answers import Answers
from tasks.stats import Stats

RECIPE = Recipe.make("sum", "linear", 0.25, 0.5, (1, 0, 1), {"keep": 20})
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def request(candidate: str = "a", shard: int = 0) -> EvalRequest:
    return EvalRequest(RECIPE, candidate, "cats", "val", shard, 7 * shard, 7 * shard + 7)


def score(candidate: str = "a", shard: int = 0, total: float = 1.0) -> ShardScore:
    return ShardScore(request(candidate, shard), Stats(2, total, total), np.array([True, False]), 0.25)


def assert_same(a: object, b: object) -> None:
    if isinstance(a, ShardScore) and isinstance(b, ShardScore):
        for part in (f.name for f in fields(ShardScore) if f.name != "outcomes"):
            assert getattr(a, part) == getattr(b, part), part
        assert a.outcomes.dtype == b.outcomes.dtype
        np.testing.assert_array_equal(a.outcomes, b.outcomes)
    else:
        assert a == b


@settings(deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=40).map(lambda x: np.array(x, np.bool_))
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20).map(lambda x: np.array(x, np.float32)),
    st.lists(NUMBERS, min_size=5, max_size=5),
    st.text(max_size=8),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.lists(st.text(max_size=4), max_size=3),
)
def test_a_score_comes_back_to_the_bit(
    outcomes: np.ndarray, numbers: list[float], worker: str, note: dict[str, int], texts: list[str]
) -> None:
    total, squares, alpha, rebuilding, evaluating = numbers
    stats, seconds = Stats(len(outcomes), total, squares), (rebuilding, evaluating)
    given_in = ShardScore(request(shard=3), stats, outcomes, alpha, seconds, worker, note, tuple(texts))
    answers = Answers({given_in.request.key: given_in})
    assert_same(answers[given_in.request.key], given_in)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(["score", "failure", "del"]))))
def test_it_is_a_dictionary(steps: list[tuple[str, int, str]]) -> None:
    """Whatever is added, replaced and removed."""
    ours, oracle = Answers(), dict[tuple[str, str, str, int], ShardScore | Failure]()
    for number, (candidate, shard, what) in enumerate(steps):
        key = request(candidate, shard).key
        if what == "del":
            assert (key in ours) == (key in oracle)
            ours.pop(key, None)
            oracle.pop(key, None)
            continue
        failure = Failure(request(candidate, shard), "lost", str(number))
        ours[key] = oracle[key] = score(candidate, shard, number) if what == "score" else failure
    assert len(ours) == len(oracle) and set(ours) == set(oracle)
    for key, answer in oracle.items():
        assert_same(ours[key], answer)
    assert ours.failures == {k: a for k, a in oracle.items() if isinstance(a, Failure)}


def test_sums_and_outcomes_are_there_once_every_shard_is_scored() -> None:
    answers = Answers({s.request.key: s for s in (score(shard=0, total=0.1), score(shard=1, total=0.2))})
    both = [("cats", "val", 0), ("cats", "val", 1)]
    assert answers.stats("a", both) == Stats() + Stats(2, 0.1, 0.1) + Stats(2, 0.2, 0.2)
    assert answers.outcomes("a", both).tolist() == [True, False] * 2  # type: ignore[union-attr]
    for candidate, places in (("a", [*both, ("cats", "val", 2)]), ("a", []), ("other", both)):
        assert answers.stats(candidate, places) is None and answers.outcomes(candidate, places) is None
    answers[request(shard=1).key] = Failure(request(shard=1), "application", "cause")
    assert answers.stats("a", both) is None, "a failure is no score"


def test_a_score_of_512_samples_takes_less_than_400_bytes() -> None:
    """As an object it takes 2 kB: each has its own recipe, names and outcomes."""
    outcomes, kept = np.ones(512, np.bool_), Answers()
    tracemalloc.start()
    try:
        for candidate in range(20):
            for shard in range(100):
                recipe = Recipe.make("sum", "linear", candidate / 7, 0.5)
                asked = EvalRequest(recipe, f"{candidate:016}", "cats", "val", shard, 512 * shard, 512 * shard + 512)
                kept[asked.key] = ShardScore(asked, Stats(512, 512.0, 512.0), outcomes.copy(), 0.5, (0.25, 1.0), "w")
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == 2000 and used / len(kept) < 400
