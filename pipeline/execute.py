"""Execute a run: prepare, start workers, run the driver, write results; on this machine or on a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console

from pipeline.cluster.connection import Connection
from pipeline.console import progress_bar
from pipeline.loading.missing import find_all
from pipeline.loading.spec_sources import SpecSources
from pipeline.messages import EvalRequest, Identity, ShardScore
from pipeline.plan.plan import Plan
from pipeline.pools.base import Pool
from pipeline.pools.deferred import DeferredPool
from pipeline.pools.local import LocalPool
from pipeline.pools.staged import StagedPool, completions_of
from pipeline.quick_imports import quick_imports
from pipeline.records.gate import Gate
from pipeline.records.journal import FILE_NAME, read_history
from pipeline.run.gate import gate_edits
from pipeline.run.run import run
from pipeline.spec.run import RunSpec
from pipeline.storage.caches.completions import CompletionCache
from pipeline.storage.caches.gates import bring_gate, keep_gate
from pipeline.storage.caches.scores import ScoreCache, has_scores
from pipeline.watch.observers import Observer, watched
from pipeline.watch.terminal import RunDisplay
from pipeline.workers.factory import WORKER_MODULE, worker_factory
from tasks.files.cache import cache_root

if TYPE_CHECKING:  # Ray, torch: not before they are needed
    from pipeline.loading.loaded import Fetch
    from pipeline.pools.ray_pool import RayPool
    from pipeline.workers.worker import Worker


@dataclass(frozen=True)
class RunTarget:
    """Where a run is executed and written.

    Attributes:
        folder: the run's folder.
        use_cache: whether to read scores of earlier runs, and keep new ones for later runs.
        check: called after every step; raises if the run must end.
        keep: called when files besides the journal have been written that dashboards and mirrors need.
    """

    folder: Path
    use_cache: bool = True
    check: Callable[[], None] = lambda: None
    keep: Callable[[], None] = lambda: None


@contextmanager
def ray_for(plans: Sequence[Plan], address: str | None) -> Iterator[Connection]:
    """Yield the connection to Ray of runs, and end it after them; a cluster at `address` is joined at once.

    Raises:
        ValueError: if an address is given for the local pool, or its nodes have other versions.
        ConnectionError: if no Ray answers at the address.
    """
    for plan in plans:
        plan.spec.resources.check_address(address)
    with ExitStack() as stack:
        connection = Connection(stack, address)
        if connection.joined and any(plan.spec.resources.pool == "ray" for plan in plans):
            connection.open()
        yield connection


def execute(plan: Plan, target: RunTarget, console: Console, connection: Connection) -> None:
    """Execute a run to its end, within `ray_for`.

    Example:
        >>> with ray_for([plan], address=None) as connection:
        ...     execute(plan, RunTarget(Path("runs/quickstart")), Console(), connection)

    Raises:
        ValueError: if a checkpoint or task is not as the spec declares it, or the folder holds another run.
        LockedError: if another run is writing in the folder.
    """
    with _prepared(plan, target, console, connection) as job:
        run(plan, job.identity, target.folder, job.open_pool, job.cache, job.watch)
        if target.use_cache:
            bring_gate(cache_root(), job.identity, target.folder)


def measure_gate(plan: Plan, use_cache: bool, console: Console, connection: Connection) -> Gate:
    """Score the leave-one-group-out gate of a plan on validation, within `ray_for`.

    Raises:
        ValueError: as `execute`, or if the gate can take nothing of the plan apart.
    """
    with TemporaryDirectory(prefix="lines-gate-") as folder:
        target = RunTarget(Path(folder), use_cache)
        with _prepared(plan, target, console, connection) as job:
            edits = gate_edits(plan, job.identity, target.folder, job.open_pool, job.cache, job.watch)
            found = Gate.of(job.identity, edits)
            if use_cache:
                keep_gate(cache_root(), job.identity, found)
    return found


@dataclass(frozen=True)
class _Job:
    """What a run works with: see `pipeline.run.run.run`."""

    identity: Identity
    open_pool: Callable[[], Pool]
    cache: ScoreCache | None
    watch: Observer


@contextmanager
def _prepared(plan: Plan, target: RunTarget, console: Console, connection: Connection) -> Iterator[_Job]:
    """Prepare checkpoints, tasks and workers."""
    spec, sources = plan.spec, SpecSources(plan.spec, plan.spec.experts)
    with ExitStack() as stack:
        with progress_bar() as report:
            find_all(spec, sources, report)
            early = _start_early(spec, target, connection, stack)
            with quick_imports():
                from pipeline.loading.prepare import prepare_found, prepare_here  # torch: not before all is there

            device_type, loaded = connection.device_type(spec.resources), None
            alone = spec.resources.pool == "local" and device_type == "cpu" and spec.generation is None
            if alone and not _scores_exist(target):
                loaded = prepare_here(spec, report, sources)
            identity = loaded.identity if loaded else prepare_found(spec, device_type, report, sources)
        of_completions = () if spec.generation is None else tuple(spec.tasks)
        cache = ScoreCache(cache_root(), identity, of_completions) if target.use_cache else None
        fetch = stack.enter_context(_fetch(spec, connection))
        display = stack.enter_context(RunDisplay(console).shown())
        watch = stack.enter_context(watched(spec, target.folder, lambda progress: target.check(), display))
        staged = partial(_open_stages, spec, identity, device_type, target, connection, fetch)
        here = worker_factory(spec, device_type, fetch, loaded)
        whole = partial(_open_pool, spec, identity, here, connection, early)
        open_pool = whole if spec.generation is None else staged
        yield _Job(identity, open_pool, cache, watch)


def _scores_exist(target: RunTarget) -> bool:
    """Return whether all of a run's scores may be known already."""
    return (target.use_cache and has_scores(cache_root())) or (target.folder / FILE_NAME).exists()


def _start_early(
    spec: RunSpec, target: RunTarget, connection: Connection, stack: ExitStack
) -> "RayPool[EvalRequest, ShardScore] | None":
    """Start Ray if no score can be known, and workers that wait: they start while checkpoints and data are prepared.

    A worker's process takes seconds to start and to import torch, as this one does. If there is a journal or a cache of
    scores, all scores may be known, and then neither Ray nor workers are needed.
    """
    if connection.joined or spec.resources.pool == "local" or _scores_exist(target):
        return None
    connection.open()
    if spec.generation is not None:
        return None  # the rewards' actors need what is prepared
    from pipeline.cluster.worker_shapes import actor_shape
    from pipeline.pools.ray_pool import RayPool

    make = worker_factory(spec, connection.device_type(spec.resources))
    pool = RayPool(make, actor_shape(spec.resources), held=WORKER_MODULE)
    stack.callback(pool.close)
    return pool


@contextmanager
def _fetch(spec: RunSpec, connection: Connection) -> "Iterator[Fetch | None]":
    """Yield what brings the spec's files to the nodes of a cluster; None on this machine."""
    if not connection.joined:
        yield None
        return
    from pipeline.cluster.files.transfer import file_transfer

    with file_transfer(spec) as fetch:
        yield fetch


def _open_pool(
    spec: RunSpec,
    identity: Identity,
    make: "Callable[[str], Worker]",
    connection: Connection,
    early: "RayPool[EvalRequest, ShardScore] | None",
) -> Pool:
    def start() -> Pool:
        if early is not None:
            early.load(identity.check)
            return early
        if spec.resources.pool == "local":
            return LocalPool(make("local"))
        connection.open()
        from pipeline.cluster.worker_shapes import actor_shape
        from pipeline.pools.ray_pool import RayPool

        return RayPool(make, actor_shape(spec.resources), check=identity.check)

    return DeferredPool(start)


def _open_stages(
    spec: RunSpec,
    identity: Identity,
    device_type: str,
    target: RunTarget,
    connection: Connection,
    fetch: "Fetch | None",
) -> Pool:
    """Open the pool of workers that complete prompts and a pool for each reward; the report's inputs are kept first."""
    from pipeline.loading.rewards import completions_context, keep_inputs
    from pipeline.workers.completion_worker import CompletionWorker  # transformers: not for other runs
    from pipeline.workers.reward_worker import RewardWorker

    prompts = keep_inputs(spec, target.folder)
    target.keep()
    cache = CompletionCache(cache_root(), completions_context(spec, identity, prompts)) if target.use_cache else None
    known = completions_of(read_history(target.folder).answers.values())
    make = partial(CompletionWorker, spec=spec, device_type=device_type, fetch=fetch)
    make_reward = {
        task: partial(RewardWorker, spec=spec, task=task, prepared=fingerprint, fetch=fetch)
        for task, (fingerprint, _, _) in identity.tasks.items()
    }

    def start() -> Pool:
        if spec.resources.pool == "local":
            local = {task: LocalPool(make_reward[task]("local", device_type=device_type)) for task in spec.tasks}
            return StagedPool(LocalPool(make("local")), local, cache, known)
        connection.open()
        from pipeline.cluster.worker_shapes import staged_shapes
        from pipeline.pools.ray_pool import RayPool

        shape, reward_shape = staged_shapes(spec.resources, len(spec.tasks))
        reward_device = "cuda" if reward_shape.num_gpus else "cpu"
        actors = {
            task: RayPool(partial(make_reward[task], device_type=reward_device), reward_shape, f"reward-{task}")
            for task in spec.tasks
        }
        return StagedPool(RayPool(make, shape, check=identity.check), actors, cache, known)

    return DeferredPool(start)
