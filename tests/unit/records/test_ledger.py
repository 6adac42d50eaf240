"""Proves that any cut into shards gives the same sums, and that a task has a value once all its shards are scored."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import IDENTITY, ToyEvaluator

from pipeline.messages import Failure, Identity
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger

RECIPE = Recipe.make("sum", "linear", 0.2, 0.8)
ID = RECIPE.id(IDENTITY.fingerprint)


def scored(size: int, tasks: tuple[str, ...] = ("cats", "dogs"), order: list[int] | None = None) -> Ledger:
    ledger = Ledger(IDENTITY, size, {})
    requests = ledger.requests(RECIPE, tasks, "val")
    for i in order or range(len(requests)):
        ledger.answers[requests[i].key] = ToyEvaluator().evaluate(requests[i])
    return ledger


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 120))
def test_any_shard_size_gives_the_same_sums_and_outcomes(size: int) -> None:
    whole, cut = scored(10_000), scored(size)
    assert cut.stats(ID, "cats", "val") == whole.stats(ID, "cats", "val")
    np.testing.assert_array_equal(cut.outcomes(ID, "dogs", "val"), whole.outcomes(ID, "dogs", "val"))
    assert cut.means(ID, ["cats", "dogs"], "val") == whole.means(ID, ["cats", "dogs"], "val")


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_order_in_which_shards_arrive_does_not_matter(order: list[int]) -> None:
    mixed = scored(30, order=order)
    assert mixed.stats(ID, "dogs", "val") == scored(30).stats(ID, "dogs", "val")
    np.testing.assert_array_equal(mixed.outcomes(ID, "cats", "val"), scored(30).outcomes(ID, "cats", "val"))


def test_requests_cover_each_split_and_carry_the_recipes_id() -> None:
    requests = Ledger(IDENTITY, 40, {}).requests(RECIPE, ["cats", "dogs"], "test")
    ranges = [(r.task, r.shard, r.start, r.stop) for r in requests if r.task == "dogs"]
    assert ranges == [("dogs", 0, 0, 40), ("dogs", 1, 40, 80), ("dogs", 2, 80, 120), ("dogs", 3, 120, 130)]
    assert {r.recipe_id for r in requests} == {ID} and len({r.key for r in requests}) == len(requests)


def test_a_task_with_a_missing_shard_has_no_value() -> None:
    ledger = scored(40)
    del ledger.answers[(ID, "cats", "val", 1)]
    assert ledger.stats(ID, "cats", "val") is None and ledger.outcomes(ID, "cats", "val") is None
    assert ledger.means(ID, ["cats", "dogs"], "val") is None and ledger.failure(ID, ["cats"], "val") is None
    assert ledger.stats(ID, "dogs", "val") is not None and ledger.stats(ID, "dogs", "test") is None


def test_a_failure_is_found_and_is_no_score() -> None:
    ledger = scored(40)
    for shard in (2, 1):
        request = replace(ledger.requests(RECIPE, ["dogs"], "val")[shard])
        ledger.answers[request.key] = Failure(request, "application", f"cause {shard}")
    assert ledger.stats(ID, "dogs", "val") is None
    failure = ledger.failure(ID, ["cats", "dogs"], "val")
    assert failure is not None and failure.cause == "cause 1", "the first in shard order"


def test_alpha_comes_from_any_score() -> None:
    score = scored(40).any_score(ID, ["cats"])
    assert score is not None and score.alpha == 0.2
    assert Ledger(IDENTITY, 40, {}).any_score(ID, ["cats"]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": {**IDENTITY.tasks, "cats": ("other images", 90, 130)}},
        {"tasks": {**IDENTITY.tasks, "cats": ("toy-cats", 50, 130)}},
        {"targets": {"cats": "dogs", "dogs": "dogs"}},
        {"numerics": "another version"},
    ],
)
def test_what_a_method_learns_from_is_part_of_its_recipes_id_and_of_no_others(change: dict[str, object]) -> None:
    identity = replace(IDENTITY, targets={"cats": "cats", "dogs": "dogs"})
    one, other = Ledger(identity, 40, {}), Ledger(replace(identity, **change), 40, {})  # type: ignore[arg-type]
    learned = Recipe.make("adamerging")
    assert one.recipe_id(learned) != other.recipe_id(learned)
    assert one.recipe_id(RECIPE) == other.recipe_id(RECIPE)


def test_the_identity_comes_back_from_json() -> None:
    assert Identity.from_json(IDENTITY.to_json()) == IDENTITY


@pytest.mark.parametrize(
    ("change", "what"),
    [({"fingerprint": "x"}, "checkpoints"), ({"numerics": "x"}, "numerics"), ({"tasks": {}}, "data")],
)
def test_a_worker_that_loaded_something_else_is_refused(change: dict[str, object], what: str) -> None:
    IDENTITY.check(ToyEvaluator().info())
    with pytest.raises(ValueError, match=rf"toy \(none\): its {what} differ from the run's"):
        IDENTITY.check(replace(ToyEvaluator().info(), **change))  # type: ignore[arg-type]
