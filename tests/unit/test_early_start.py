"""Proves that Ray and workers start before the preparation where no score can be known, and nowhere else."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import toy_spec

from pipeline.cluster import session, worker_shapes
from pipeline.cluster.connection import Connection
from pipeline.execute import RunTarget, _start_early
from pipeline.pools import ray_pool
from pipeline.spec.resources import Resources
from tasks.files.cache import cache_root


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace Ray by a list of what is done to it."""
    found: list[str] = []

    @contextmanager
    def local_ray(address: str | None) -> Iterator[None]:
        found.append("Ray")
        yield

    def pool(make: Any, shape: Any, held: str) -> Any:
        found.append(f"workers held at {held}")
        return SimpleNamespace(close=lambda: found.append("closed"))

    monkeypatch.setattr(session, "local_ray", local_ray)
    monkeypatch.setattr(worker_shapes, "actor_shape", lambda resources: SimpleNamespace(num_gpus=0))
    monkeypatch.setattr(ray_pool, "RayPool", pool)
    return found


@pytest.mark.parametrize("case", ["empty", "scores", "scores, not used", "journal", "local"])
def test_workers_start_early_if_no_score_can_be_known(case: str, events: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if case.startswith("scores"):
        (cache_root() / "scores").mkdir(parents=True)
        (cache_root() / "scores" / "one.jsonl").touch()
    if case == "journal":
        (folder / "journal.jsonl").touch()
    spec = toy_spec().model_copy(update={"resources": Resources(pool="local" if case == "local" else "ray")})
    with ExitStack() as stack:
        early = _start_early(spec, RunTarget(folder, case != "scores, not used"), Connection(stack, None), stack)
        assert (early is not None) == (case in ("empty", "scores, not used"))
    expected = ["Ray", "workers held at pipeline.workers.worker", "closed"]
    assert events == (expected if early is not None else [])
