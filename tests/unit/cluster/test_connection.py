"""Proves that Ray is started once, for the first run that needs it, and not to learn what this machine tells."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cluster import preflight, session, worker_shapes
from pipeline.cluster.connection import Connection
from pipeline.spec.resources import Resources

Events = list[str]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """Replace Ray by a list of what is done to it; no cluster has a GPU."""
    found: Events = []

    @contextmanager
    def local_ray(address: str | None) -> Iterator[None]:
        found.append(f"open {address}")
        yield
        found.append("close")

    monkeypatch.setattr(session, "local_ray", local_ray)
    monkeypatch.setattr(preflight, "check_nodes", lambda address: found.append(f"check {address}"))
    monkeypatch.setattr(worker_shapes, "actor_shape", lambda resources: SimpleNamespace(num_gpus=0))
    return found


@pytest.mark.parametrize(("address", "opened"), [(None, ["open None"]), ("auto", ["open auto", "check auto"])])
def test_ray_is_opened_once_for_several_runs_and_closed_after_them(
    events: Events, address: str | None, opened: list[str]
) -> None:
    with ExitStack() as stack:
        first = Connection(stack, address)
        for _run in range(2):
            first.open()
        assert events == opened
    assert events == [*opened, "close"]


@pytest.mark.parametrize(
    ("resources", "address", "opened"),
    [
        ({"pool": "local"}, None, False),
        ({}, None, False),
        ({"per_worker": {"num_gpus": 0}}, None, False),
        ({"per_worker": {"num_gpus": 1}}, None, True),
        ({"per_worker": {"num_cpus": 10_000}}, None, True),  # an error at once, not after the preparation
        ({}, "auto", True),
    ],
)
def test_ray_is_asked_for_the_device_only_where_this_machine_does_not_tell(
    events: Events, monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any], address: str | None, opened: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with ExitStack() as stack:
        assert Connection(stack, address).device_type(Resources(**resources)) == "cpu"
        assert bool(events) is opened
