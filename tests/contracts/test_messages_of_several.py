"""Proves, in virtual time, that short requests share messages, and that every one keeps an answer of its own."""

import logging
from collections import Counter
from typing import Any

import pytest
from ray.exceptions import RaySystemError
from virtual_ray import Behaviour, VirtualActor, World, drained, raised, requests, score, virtual, well

from pipeline.cluster.capacity import ActorShape
from pipeline.messages import EvalRequest, Failure
from pipeline.pools.ray_pool import RayPool

SHORT = 0.01


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = virtual(monkeypatch)
    for i in range(4):
        made.join(str(i))
    return made


def answers_of(world: World, behaviour: Any, wanted: list[EvalRequest]) -> tuple[list[Any], list[Failure]]:
    """Return the answers, checked to be one for each request, and the failures among them."""

    def behave(actor: VirtualActor, method: str, *arguments: Any) -> Behaviour:
        if method == "info":
            return well(actor, method)
        return behaviour(actor, arguments[0]) or score(actor, arguments[0], SHORT)

    world.behave = behave
    pool = RayPool(None, ActorShape(4))  # type: ignore[arg-type, var-annotated]
    answers = drained(pool, wanted)
    pool.close()
    assert Counter(a.request for a in answers) == Counter(wanted)
    return answers, [a for a in answers if isinstance(a, Failure)]


def is_bad(request: EvalRequest) -> bool:
    return (request.recipe_id, request.shard) in (("c3", 7), ("c3", 40), ("c8", 0))


def test_short_requests_share_messages_and_long_ones_do_not(world: World) -> None:
    sent: list[tuple[str, ...]] = []
    every = VirtualActor._all

    def noted(actor: VirtualActor, found: Any) -> Behaviour:
        sent.append(tuple(r.recipe_id for r in found))
        return every(actor, found)

    VirtualActor._all = noted  # type: ignore[method-assign]
    try:
        began = world.now
        answers_of(world, lambda actor, request: None, requests(40, 50))
        messages = sum(a.messages for a in world.actors)
        assert messages < 2000 / 10, "most of the messages have 25 requests, which take 0.25 s"
        assert all(len(set(candidates)) == 1 for candidates in sent) and max(map(len, sent)) == 25
        assert world.now - began < 15 + 1.3 * 2000 * SHORT / 4, "the load, and all four finish at about the same time"
        sent.clear()
        answers_of(world, lambda actor, request: score(actor, request, 0.3), requests(10, 20))
        assert not sent
    finally:
        VirtualActor._all = every  # type: ignore[method-assign]


def test_an_error_is_the_answer_of_its_own_request(world: World) -> None:
    error = raised(ValueError("a bad label"))
    _, failed = answers_of(
        world, lambda actor, request: (SHORT, "raises", error) if is_bad(request) else None, requests(20, 50)
    )
    assert {(f.kind, f.cause) for f in failed} == {("application", "ValueError: a bad label")}
    assert all(is_bad(f.request) for f in failed) and len(failed) == 3 and len(world.actors) == 4
    memory = raised(MemoryError("too large"))
    _, failed = answers_of(
        world, lambda actor, request: (SHORT, "raises", memory) if is_bad(request) else None, requests(20, 50)
    )
    assert [f.kind for f in failed] == ["out_of_memory"] * 3 and all(is_bad(f.request) for f in failed)


def test_a_request_at_which_workers_die_is_found_within_its_message(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    _, failed = answers_of(
        world, lambda actor, request: (SHORT, "dies", None) if is_bad(request) else None, requests(20, 50)
    )
    assert len(failed) == 3 and all(f.kind == "lost" and is_bad(f.request) for f in failed)
    assert all("its worker was lost 4 times" in f.cause for f in failed), "the loss of its message is not one of them"
    assert "gets no more workers" not in caplog.text
    assert len(world.actors) - 4 <= 3 * 5, "a loss for each of four tries, and one for the message"


def test_a_broken_device_fails_none(world: World) -> None:
    error = raised(RuntimeError("CUDA error: uncorrectable ECC error encountered"))

    def breaks(actor: VirtualActor, request: EvalRequest) -> Behaviour | None:
        return (0.001, "raises", error) if actor.name == "worker-2" and actor.answered > 60 else None

    _, failed = answers_of(world, breaks, requests(20, 50))
    assert not failed and len(world.actors) == 5


def test_workers_that_die_now_and_then_lose_no_answer(world: World) -> None:
    calls = Counter[str]()

    def dies(actor: VirtualActor, request: EvalRequest) -> Behaviour | None:
        calls["all"] += 1
        return (SHORT, "dies", None) if calls["all"] % 301 == 0 else None

    _, failed = answers_of(world, dies, requests(40, 50))
    assert not failed and len(world.actors) > 8


def test_a_request_at_which_workers_hang_fails_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    _, failed = answers_of(
        world,
        lambda actor, request: score(actor, request, 1e9) if (request.recipe_id, request.shard) == ("c3", 7) else None,
        requests(20, 50),
    )
    assert [(f.kind, f.request.recipe_id, f.request.shard) for f in failed] == [("lost", "c3", 7)]
    assert "sent with it" in caplog.text


def test_a_slow_worker_keeps_nobody_waiting(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    began = world.now

    def slow(actor: VirtualActor, request: EvalRequest) -> Behaviour | None:
        return score(actor, request, 600.0) if actor.name == "worker-1" and actor.answered > 100 else None

    _, failed = answers_of(world, slow, requests(20, 50))
    assert not failed and world.now - began < 30 and "gets a copy of a slow request" in caplog.text


def test_answers_that_cannot_be_sent_together_are_asked_for_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(actor: VirtualActor, found: Any) -> Behaviour:
        return SHORT, "raises", raised(RaySystemError("object store is full"))

    monkeypatch.setattr(VirtualActor, "_all", cannot)
    _, failed = answers_of(world, lambda actor, request: None, requests(4, 20))
    assert not failed
