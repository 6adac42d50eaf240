"""`lines run`: prepare, start workers, work the run, report; on this machine or on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from pipeline.cluster.files.transfer import shipment
from pipeline.cluster.preflight import check_nodes
from pipeline.cluster.session import local_ray
from pipeline.cluster.worker_shapes import actor_shape, staged_shapes
from pipeline.console import progress_bar
from pipeline.loading.prepare import prepare
from pipeline.messages import Identity
from pipeline.plan.plan import Plan
from pipeline.pools.base import Pool
from pipeline.pools.local import LocalPool
from pipeline.pools.ray_pool import RayPool
from pipeline.pools.staged import StagedPool, completions_of
from pipeline.records.journal import read_history
from pipeline.run.run import run
from pipeline.spec.run import RunSpec
from pipeline.storage.caches.completions import CompletionCache
from pipeline.storage.caches.scores import ScoreCache
from pipeline.watch.observers import watched
from pipeline.watch.terminal import RunDisplay
from pipeline.workers.worker import Fetch, Worker, make_worker
from tasks.files.cache import cache_root


@dataclass(frozen=True)
class RunTarget:
    """Where a run is executed.

    Attributes:
        folder: the run's folder.
        use_cache: whether scores of other runs count, and are left for them.
        joined: whether Ray runs elsewhere too, on nodes that may not see this disk.
        check: called after every step; raises where the run cannot be kept any longer.
        keep: called where there are files beside the journal that those who look on need.
    """

    folder: Path
    use_cache: bool = True
    joined: bool = False
    check: Callable[[], None] = lambda: None
    keep: Callable[[], None] = lambda: None


@contextmanager
def ray_for(plans: Sequence[Plan], address: str | None) -> Iterator[None]:
    """Ray, started here or joined at `address`, for as long as runs need it; nothing where all use the local pool.

    Raises:
        ValueError: an address is given for the local pool, or its nodes have other versions.
        ConnectionError: no Ray at the address.
    """
    pools = {plan.spec.resources.pool for plan in plans}
    for plan in plans:
        plan.spec.resources.check_address(address)
    if "ray" not in pools:
        yield
        return
    with local_ray(address=address):
        if address is not None:
            check_nodes(address)
        yield


def execute(plan: Plan, where: RunTarget, console: Console) -> None:
    """Work a run to its end, within `ray_for`.

    Raises:
        ValueError: a checkpoint or task is not what the spec says, or the folder holds another run.
        LockedError: another run is writing in the folder.
    """
    spec = plan.spec
    device_type = _device_type(spec)
    with progress_bar() as report:
        identity = prepare(spec, device_type, report)
    cache = ScoreCache(cache_root(), identity) if where.use_cache else None
    with (
        shipment(spec) if where.joined else nullcontext() as fetch,
        RunDisplay(console).shown() as display,
        watched(spec, where.folder, lambda progress: where.check(), display) as watch,
    ):
        staged = partial(_open_stages, spec, identity, device_type, where, fetch)
        whole = partial(_open_pool, spec, identity, device_type, fetch)
        open_pool = whole if spec.generation is None else staged
        run(plan, identity, where.folder, open_pool, cache, watch)


def _device_type(spec: RunSpec) -> str:
    """Where workers will evaluate: on GPUs where each gets a part of one."""
    if spec.resources.pool == "ray":
        return "cuda" if actor_shape(spec.resources).num_gpus else "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _open_pool(spec: RunSpec, identity: Identity, device_type: str, fetch: Fetch | None) -> Pool:
    if spec.resources.pool == "local":
        return LocalPool(Worker(spec, device_type=device_type))
    make = partial(make_worker, spec=spec, device_type=device_type, fetch=fetch)
    return RayPool(make, actor_shape(spec.resources), check=identity.check)


def _open_stages(
    spec: RunSpec, identity: Identity, device_type: str, where: RunTarget, fetch: Fetch | None
) -> StagedPool:
    """Workers that complete prompts, and one for each reward; what the report needs of their inputs is kept first."""
    from pipeline.loading.rewards import completions_context, keep_inputs
    from pipeline.workers.completion_worker import (  # transformers: not for other runs
        CompletionWorker,
        make_policy_worker,
    )
    from pipeline.workers.reward_worker import RewardWorker, make_scorer

    prompts = keep_inputs(spec, where.folder)
    where.keep()
    cache = CompletionCache(cache_root(), completions_context(spec, identity, prompts)) if where.use_cache else None
    known = completions_of(read_history(where.folder).answers.values())
    prepared = {task: fingerprint for task, (fingerprint, _, _) in identity.tasks.items()}
    if spec.resources.pool == "local":
        scorers = {
            task: LocalPool(RewardWorker(spec, task, prepared[task], device_type=device_type)) for task in spec.tasks
        }
        return StagedPool(LocalPool(CompletionWorker(spec, device_type=device_type)), scorers, cache, known)
    shape, of_reward = staged_shapes(spec.resources, len(spec.tasks))
    reward_device = "cuda" if of_reward.num_gpus else "cpu"
    make = partial(make_scorer, spec=spec, device_type=reward_device, fetch=fetch)
    actors = {
        task: RayPool(partial(make, task=task, prepared=prepared[task]), of_reward, f"reward-{task}")
        for task in spec.tasks
    }
    make_writer = partial(make_policy_worker, spec=spec, device_type=device_type, fetch=fetch)
    generators = RayPool(make_writer, shape, check=identity.check)
    return StagedPool(generators, actors, cache, known)
