"""The rows of the table: each measures one thing, and returns a line."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.gpu.tower import Exhausts, Setting, Tower, betas, requests
from benchmarks.rebuild import make_memcpy, median_seconds
from pipeline.cluster.capacity import ActorShape
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.pools.base import Pool
from pipeline.pools.local import LocalPool
from pipeline.pools.ray_pool import RayPool


def title(setting: Setting) -> str:
    """Return the first columns of a row."""
    return f"{setting.model:20} {str(setting.dtype).removeprefix('torch.'):9}"


def tower_rows(setting: Setting, rounds: int, compiled: bool) -> Iterator[str]:
    """Yield candidates a second, overhead, rebuild against memcpy, the shared first block, and torch.compile."""
    tower, device = Tower("bare", setting), torch.device(setting.device)
    other, same = betas(10**6), betas(10**6, alpha=0.5)
    size = tower.resident.base.whole.numel()
    copy = make_memcpy(device, size * (4 + 4 + setting.dtype.itemsize))

    def candidate(recipes: object) -> None:
        tower.held.hold(next(recipes))  # type: ignore[call-overload]
        tower.whole()

    def bare() -> None:
        tower.backbone.set_start(None)
        tower.whole()

    def rebuild() -> None:
        tower.held.hold(next(other))

    for _ in range(2):
        candidate(same)  # from now on, what enters the second block is kept
    actions = (bare, rebuild, copy, partial(candidate, other), partial(candidate, same))
    plain, built, copied, whole, shared = (wall for wall, _ in median_seconds(device, rounds, *actions))
    yield (
        f"{title(setting)} {1 / whole:8.3f} candidates/s ({setting.images / whole:7.0f} images/s), "
        f"{whole / plain:.3f} times bare passes; rebuild {1000 * built:.1f} ms, {built / copied:.2f} times a memcpy; "
        f"one alpha {whole / shared:.3f} times as fast"
    )
    if compiled:
        yield _compiled(tower, rounds, plain)


def _compiled(tower: Tower, rounds: int, plain: float) -> str:
    """Compile the blocks in place, and compare passes and classes."""
    setting, device = tower.setting, torch.device(tower.setting.device)
    tower.backbone.set_start(None)
    before = tower.classes(0, setting.images)
    started = time.perf_counter()
    tower.backbone.module.compile()
    after = tower.classes(0, setting.images)
    seconds = time.perf_counter() - started
    ((wall, _),) = median_seconds(device, rounds, tower.whole)
    same = int((before == after).sum())
    return (
        f"{title(setting)} torch.compile: {plain / wall:.3f} times as fast, after {seconds:.0f} s; "
        f"{same} of {setting.images} classes are the same"
    )


def answered(pool: Pool, wanted: list[EvalRequest]) -> list[ShardScore | Failure]:
    """Have a pool answer requests."""
    pool.submit(wanted)
    found: list[ShardScore | Failure] = []
    while len(found) < len(wanted):
        found += pool.wait()
    return found


def memory_row(setting: Setting, shard: int) -> str:
    """Run out of memory in some shards: these must be failures, and the others scores, the same as before."""
    pool: Pool = LocalPool(Exhausts("memory", setting))
    wanted = requests(setting, 4, shard)
    found = answered(pool, wanted)
    failed = [a for a in found if isinstance(a, Failure)]
    assert all(a.kind == "out_of_memory" and a.request.shard == 0 for a in failed) and len(failed) == 2, failed
    plain = answered(LocalPool(Tower("plain", setting)), wanted)
    scores = {a.request: a.outcomes.tobytes() for a in plain if isinstance(a, ShardScore)}
    assert all(scores[a.request] == a.outcomes.tobytes() for a in found if isinstance(a, ShardScore))
    return f"{title(setting)} out of memory: 2 shards failed as they should, {len(found) - 2} others have the same bits"


def pool_row(setting: Setting, workers: int, candidates: int, shard: int, gpus: float) -> str:
    """Measure workers on one device through Ray, against bare passes in this process."""
    make: Callable[[str], Tower] = partial(Tower, setting=setting)
    pool = RayPool[EvalRequest, ShardScore](make, ActorShape(workers, num_gpus=gpus / workers))
    answered(pool, requests(setting, workers * 2, shard))
    started = time.perf_counter()
    answered(pool, requests(setting, candidates, shard))
    seconds = time.perf_counter() - started
    pool.close()
    shards = candidates * len(range(0, setting.images, shard))
    return (
        f"{title(setting)} {workers} worker{'s' * (workers > 1)} through Ray: {candidates / seconds:.3f} candidates/s, "
        f"{1000 * seconds / shards:.2f} ms a shard of {shard} images"
    )
