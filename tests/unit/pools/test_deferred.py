"""Proves that a deferred pool opens its workers for the first request, and once."""

import pytest
from toy import IDENTITY, ToyEvaluator

from pipeline.messages import EvalRequest
from pipeline.pools.base import Pool
from pipeline.pools.deferred import DeferredPool
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.records.ledger import Ledger


def requests() -> list[EvalRequest]:
    return list(Ledger(IDENTITY, 40, {}).requests(Recipe.make("sum"), ["cats"], "val"))


def test_nothing_is_opened_without_a_request() -> None:
    pool = DeferredPool[EvalRequest, object](lambda: pytest.fail("opened"))
    pool.submit([])
    assert pool.wait() == [] and pool.workers == []
    pool.close()


def test_the_error_of_opening_is_raised_and_the_next_request_tries_again() -> None:
    opened: list[Pool] = []

    def open_pool() -> Pool:
        opened.append(LocalPool(ToyEvaluator()))
        if len(opened) == 1:
            raise ValueError("no node fits")
        return opened[-1]

    pool = DeferredPool(open_pool)
    with pytest.raises(ValueError, match="no node fits"):
        pool.submit(requests())
    pool.close()
    for request in requests():
        pool.submit([request])
    assert len(opened) == 2 and len(pool.workers) == 1 and pool.wait() != []
