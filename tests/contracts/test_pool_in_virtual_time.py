"""Proves, in virtual time, that a pool survives devices, shards, nodes and rewards that are broken for hours."""

from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import RuntimeEnvSetupError
from virtual_ray import Behaviour, VirtualActor, World, drained, raised, requests, score, virtual, well

from pipeline.cluster.capacity import ActorShape, Node
from pipeline.errors import WorkersLostError
from pipeline.messages import Completions, EvalRequest, Failure, ScoreRequest
from pipeline.pools.ray_pool import RayPool
from pipeline.pools.staged import StagedPool

HOUR = 3600.0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return virtual(monkeypatch)


def elastic(workers: int) -> RayPool:
    return RayPool(None, ActorShape(workers, elastic=True))  # type: ignore[arg-type]


def failures(answers: list[Any]) -> list[Failure]:
    return [answer for answer in answers if isinstance(answer, Failure)]


def evaluates(behaviour: Callable[[VirtualActor, Any], Behaviour | None]) -> Callable[..., Behaviour]:
    """Load and answer well unless `behaviour` returns something else."""

    def behave(actor: VirtualActor, method: str, *arguments: Any) -> Behaviour:
        found = behaviour(actor, arguments[0]) if method == "evaluate" else None
        return found or well(actor, method, *arguments)

    return behave


def test_a_broken_device_costs_one_shard_a_try_and_fails_none(world: World) -> None:
    """CUDA repeats the error at every later call: a process that fails in milliseconds would take all requests."""
    for i in range(4):
        world.join(str(i))
    error = raised(RuntimeError("CUDA error: uncorrectable ECC error encountered"))

    def breaks(actor: VirtualActor, request: object) -> Behaviour | None:
        return (0.005, "raises", error) if actor.name == "worker-2" and actor.answered > 20 else None

    world.behave = evaluates(breaks)
    answers = drained(elastic(4), requests(20, 20))
    assert len(answers) == 400 and not failures(answers)


@pytest.mark.parametrize(("workers", "deadly"), [(1, 5), (2, 3), (8, 20), (4, 20)])
@pytest.mark.parametrize("alone", [False, True])
def test_a_candidate_that_kills_workers_ends_neither_the_run_nor_a_node(
    world: World, caplog: pytest.LogCaptureFixture, workers: int, deadly: int, alone: bool
) -> None:
    """Also if no other request is left, as after a resume."""
    for i in range(workers):
        world.join(str(i))

    def is_deadly(request: EvalRequest) -> bool:
        return request.recipe_id == "c3" and request.shard < deadly

    world.behave = evaluates(lambda actor, request: (0.5, "dies", None) if is_deadly(request) else None)
    wanted = [r for r in requests(20, 20) if not alone or is_deadly(r)]
    answers = drained(elastic(workers), wanted)
    assert {(f.kind, f.request.recipe_id) for f in failures(answers)} == {("lost", "c3")}
    assert len(answers) == len(wanted) and len(failures(answers)) == deadly
    assert "gets no more workers" not in caplog.text


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("after", [0.0, 100.0])
def test_workers_that_die_of_every_request_end_the_run_within_minutes(world: World, workers: int, after: float) -> None:
    for i in range(workers):
        world.join(str(i))
    end = world.now + after
    world.behave = evaluates(lambda actor, request: (0.5, "dies", None) if world.now > end else None)
    with pytest.raises(WorkersLostError, match="is there enough memory for one worker"):
        drained(elastic(workers), requests(200, 10))
    assert world.now < end + 600


def test_a_node_that_cannot_read_the_code_is_reported_and_the_others_continue(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(3):
        world.join(str(i))

    def refuse(node: Node) -> Exception | None:
        return RuntimeEnvSetupError("Failed.\nNo space left on device") if node.id == "3" else None

    world.refuse = refuse
    world.at(world.now + 60, lambda: world.join("3"))
    answers = drained(elastic(3), requests(50, 20))
    assert len(answers) == 1000 and not failures(answers)
    warnings = [r.getMessage() for r in caplog.records if "could not start" in r.getMessage()]
    assert 1 <= len(warnings) <= 10 and "No space left on device" in warnings[0]


def test_if_no_node_can_read_the_code_the_cause_ends_the_run(world: World) -> None:
    world.join("0")
    world.refuse = lambda node: RuntimeEnvSetupError("Failed.\nNo space left on device")
    with pytest.raises(ValueError, match="could not start: No space left"):
        drained(elastic(1), requests(1, 1))


class TwoArguments(Exception):
    """Its pickle cannot be read back."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")


def test_an_error_that_cannot_be_read_back_kills_no_worker(world: World) -> None:
    for i in range(2):
        world.join(str(i))
    error = raised(TwoArguments("label", 3))
    world.behave = evaluates(lambda actor, request: (0.1, "raises", error) if request.shard == 1 else None)
    answers = drained(elastic(2), requests(3, 5))
    assert [f.kind for f in failures(answers)] == ["application"] * 3 and len(world.actors) == 2


def test_a_shard_at_which_workers_hang_is_reported_and_fails_in_the_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(4):
        world.join(str(i))
    world.behave = evaluates(
        lambda actor, request: score(actor, request, 1e9) if (request.recipe_id, request.shard) == ("c3", 1) else None
    )
    answers = drained(elastic(4), requests(20, 10))
    (failed,) = failures(answers)
    assert len(answers) == 200 and failed.kind == "lost" and "it has been at shard 1 of cats" in failed.cause
    assert "has been at shard 1 of cats, val, candidate c3 for 60" in caplog.text


def test_an_excluded_node_is_tried_again_as_soon_however_many_were_excluded_before(world: World) -> None:
    """Over days, one node after the other has a full disk for a while."""
    full: dict[str | None, float] = {}

    def behave(actor: VirtualActor, method: str, *arguments: Any) -> Behaviour:
        if method == "info" and full.get(actor.node, 0.0) > world.now:
            return 5.0, "raises", raised(OSError(28, "No space left on device"))
        return score(actor, arguments[0], 600.0) if method == "evaluate" else well(actor, method)

    world.behave = behave
    for i in range(12):
        world.join(str(i))
    pool = elastic(12)
    pool.submit(requests(1000, 20))

    def works(node: str) -> bool:
        return any(a.info is not None and a.node == node and a.handle.dead is None for a in pool.actors)

    def until(condition: Callable[[], bool], hours: float) -> None:
        end = world.now + HOUR * hours
        while world.now < end and not condition():
            pool.wait(timeout=1.0)

    for node in map(str, range(12)):
        until(lambda node=node: works(node), 1.0)  # type: ignore[misc]
        began, full[node] = world.now, world.now + 90
        for actor in [a for a in world.actors if a.node == node]:
            actor.die()
        until(lambda node=node: works(node), 1.0)  # type: ignore[misc]
        assert works(node) and world.now - began < 300


def test_workers_of_an_excluded_node_do_not_count_against_others(world: World) -> None:
    """One of two workers on B cannot load; the other continues. A worker on A that dies is replaced."""
    world.join("A", 2)
    world.join("B", 2)

    def behave(actor: VirtualActor, method: str, *arguments: Any) -> Behaviour:
        if method == "info" and actor.node == "B" and actor is not next(a for a in world.actors if a.node == "B"):
            return 30.0, "raises", raised(RuntimeError("out of memory"))
        return well(actor, method, *arguments)

    world.behave = behave
    pool = elastic(4)
    pool.submit(requests(500, 20))
    for seconds in (50, 30):  # B is excluded after 30 s, and tried again after 90
        end = world.now + seconds
        while world.now < end:
            pool.wait(timeout=1.0)
        victim = next(a for a in world.actors if a.node == "A" and a.dead is None)
        if seconds == 50:
            victim.die()
    assert sorted(a.node for a in pool.actors if a.info is not None) == ["A", "A", "B"]


def test_a_reward_whose_process_dies_gets_its_reserved_place_again(world: World) -> None:
    """Of four requested workers, two have a place and two wait for one."""
    for i in range(3):
        world.join(str(i))

    def behave(actor: VirtualActor, method: str, *arguments: Any) -> Behaviour:
        if method == "info":
            return well(actor, method)
        (request,) = arguments
        if not isinstance(request, ScoreRequest):
            return 1.0, "answers", Completions(request, ("text",), 0.1, (0.0, 1.0), actor.name)
        if actor.name == "reward-cats-0" and actor.answered == 30:
            return 0.1, "dies", None
        return score(actor, request.request, 0.2)

    world.behave = behave
    reward = ActorShape(1)
    rewards = {"cats": RayPool(None, reward, "reward-cats")}  # type: ignore[arg-type, var-annotated]
    writers = RayPool(None, ActorShape(4, reserved=reward))  # type: ignore[arg-type, var-annotated]
    answers = drained(StagedPool(writers, rewards), requests(20, 10), hours=1.0)
    assert len(answers) == 200 and not failures(answers)
    assert [a.name for a in world.actors if a.name.startswith("reward")] == ["reward-cats-0", "reward-cats-1"]
    assert sum(a.node is None for a in world.actors if a.dead is None) == 2, "an autoscaler adds nodes for them"
