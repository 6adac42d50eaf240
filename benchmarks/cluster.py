"""Cost of a cluster: efficiency on 1, 2 and 4 nodes, overhead of a shard, a killed node, a node that joins.

Nodes are real Ray nodes on this machine, each with a GPU that only Ray counts. Workers sleep for a fixed time in place
of computing, so that two cores suffice for four of them; driver, journal, tables, pool and Ray are real. Run:
python -m benchmarks.cluster
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.nodes import NodeProcess
from benchmarks.shared_pool import SharedPool
from benchmarks.simulation.runs import Case, Formula, identity_of, plan_of
from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.session import local_ray
from pipeline.messages import EvalRequest, ShardScore, WorkerInfo
from pipeline.pools.ray_pool import RayPool
from pipeline.run.run import run

#: Samples of a shard, a realistic number; each of the two tasks has one shard.
_SHARD = 512
#: Seconds that a worker takes to load, if loading is measured.
_LOAD = 2.0


def case_of(candidates: int) -> Case:
    """Return a merge over a grid of `candidates` constants, two shards each."""
    return Case(candidates=candidates, tasks=2, samples=_SHARD, shard_size=_SHARD)


class Sleeper:
    """An evaluator with a fixed service time that logs the times of its steps."""

    def __init__(self, name: str, case: Case, diaries: Path, service: float, load: float) -> None:
        """Take `load` seconds to load."""
        self._name, self._service, self._diary = name, service, diaries / f"{name}.jsonl"
        self._note("begins")
        plan = plan_of(case)
        self._identity, self._score = identity_of(case, plan), Formula(case, plan)
        time.sleep(load)
        self._note("loaded")

    def _note(self, what: str) -> None:
        with self._diary.open("a") as file:
            file.write(json.dumps([what, time.time()]) + "\n")

    def info(self) -> WorkerInfo:
        """Describe itself like a loaded worker."""
        return self._identity.worker(self._name, "none")

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Sleep, then answer by a formula, with the seconds that this took."""
        started = time.perf_counter()
        time.sleep(self._service)
        score = self._score(request, self._name)
        seconds = (0.0, time.perf_counter() - started)
        return ShardScore(request, score.stats, score.outcomes, score.alpha, seconds, self._name)


@contextmanager
def workers(count: int, service: float, load: float = 0.0) -> Iterator[tuple[SharedPool, Path, list[NodeProcess]]]:
    """Yield an elastic pool on `count` nodes, the folder of its workers' logs, and the nodes."""
    with ExitStack() as stack:
        diaries = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(local_ray(num_cpus=0))
        nodes: list[NodeProcess] = []
        stack.callback(_stop, nodes)
        for _ in range(count):
            nodes.append(NodeProcess(cpus=1, gpus=1))
            nodes[-1].started()
        make = partial(Sleeper, case=case_of(1), diaries=diaries, service=service, load=load)
        pool = RayPool(make, ActorShape(count, num_cpus=1, num_gpus=1, elastic=True))
        stack.callback(pool.close)
        watched = SharedPool(pool)
        while len(pool.workers) < count:  # workers load during a run
            work(watched, 2 * count)
        watched.came.clear()
        yield watched, diaries, nodes


def _stop(nodes: list[NodeProcess]) -> None:
    for node in nodes:
        node.stop()


def work(pool: SharedPool, candidates: int) -> float:
    """Run once, tables included; return the seconds."""
    case = case_of(candidates)
    plan = plan_of(case)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(plan, identity_of(case, plan), Path(folder) / "run", lambda: pool, None)
        return time.perf_counter() - started


@dataclass(frozen=True)
class Sweep:
    """One run with loaded workers.

    Attributes:
        nodes: number of nodes, with one worker each.
        wall: seconds of the whole run.
        busy: seconds of work on each shard, in the order of the answers.
        answering: seconds from the first answer to the last.
    """

    nodes: int
    wall: float
    busy: list[float]
    answering: float


def sweep(count: int, service: float, candidates: int) -> Sweep:
    """Run on `count` nodes with a worker each."""
    with workers(count, service) as (pool, _, _):
        wall = work(pool, candidates)
        return Sweep(count, wall, [score.seconds[1] for _, score in pool.came], pool.came[-1][0] - pool.came[0][0])


def efficiency(service: float, candidates: int) -> None:
    """Print the speed of the same run on 1, 2 and 4 nodes."""
    print(
        f"\n| nodes | shards of {service:g} s | seconds | times as fast as one | workers busy |\n|---|---|---|---|---|"
    )
    sweeps = [sweep(count, service, candidates) for count in (1, 2, 4)]
    for found in sweeps:
        faster, busy = sweeps[0].wall / found.wall, sum(found.busy) / (found.nodes * found.wall)
        print(f"| {found.nodes} | {len(found.busy)} | {found.wall:.1f} | {faster:.2f} | {100 * busy:.1f} % |")


def overhead(services: Iterable[float], seconds: float) -> None:
    """Print one worker's time a shard beyond the service time, and the rest of a run of about `seconds`."""
    print("\n| service of a shard | shards | beyond it, a shard | before the first answer and after the last |")
    print("|---|---|---|---|")
    for service in services:
        found = sweep(1, service, max(8, int(min(500, seconds / max(service, 1e-3)) / 2)))
        beyond = (found.answering - sum(found.busy[1:])) / (len(found.busy) - 1)
        rest = found.wall - found.answering - found.busy[0]
        print(f"| {1000 * service:g} ms | {len(found.busy)} | {1000 * beyond:.2f} ms | {rest:.2f} s |")


def killed(service: float, candidates: int) -> None:
    """Print the recovery from killing one of three nodes: its shards, and the answers of the others."""
    with workers(3, service) as (pool, _, nodes):
        lost: list[EvalRequest] = []
        at: list[float] = []

        def kill() -> None:
            actor = pool.actor(pool.came[-1][1].worker)
            (victim,) = (node for node in nodes if node.started()[0] == actor.node)
            lost.extend(r for job in actor.outstanding.values() if job is not None for r in job.requests)
            at.append(time.time())
            victim.kill()

        pool.then[candidates // 2] = kill
        wall = work(pool, candidates)
        before, after = ([when for when, _ in pool.came if (when >= at[0]) is later] for later in (False, True))
        again = {score.request: when - at[0] for when, score in pool.came if when >= at[0]}
        print("\n| killed, of 3 nodes | |\n|---|---|")
        print(f"| shards that its worker had | {len(lost)} |")
        print(f"| until others had answered them | {max(again[request] for request in lost):.1f} s |")
        print(f"| until the next answer of any | {after[0] - at[0]:.1f} s |")
        print(f"| answers a second before | {rate(before):.2f} (3 / service: {3 / service:.2f}) |")
        print(f"| answers a second after | {rate(after):.2f} (2 / service: {2 / service:.2f}) |")
        print(f"| the whole run | {wall:.1f} s, {len(pool.came)} shards |")


def rate(times: list[float]) -> float:
    """Return answers a second."""
    return (len(times) - 1) / (times[-1] - times[0])


def joined(service: float, candidates: int) -> None:
    """Print the time until a second node that joins gives its first answer."""
    with workers(1, service, _LOAD) as (pool, diaries, nodes):
        first = set(worker.name for worker in pool.workers)
        pool.then[candidates // 4] = lambda: nodes.append(NodeProcess(cpus=1, gpus=1))
        work(pool, candidates)
        news = [(when, score.worker) for when, score in pool.came if score.worker not in first]
        if not news:
            raise RuntimeError("the run ended before the new node answered: use more --candidates")
        answered, worker = news[0]
        lines = map(json.loads, (diaries / f"{worker}.jsonl").read_text().splitlines())
        diary: dict[str, float] = dict(lines)
        began, up = nodes[1].began, nodes[1].started()[2]
    print("\n| a node that joins | seconds |\n|---|---|")
    print(f"| start of its raylet | {up - began:.1f} |")
    print(f"| until the pool has seen it, and Ray has started the actor | {diary['begins'] - up:.1f} |")
    print(f"| loading (a sleep of {_LOAD:g} s) | {diary['loaded'] - diary['begins']:.1f} |")
    print(f"| its first answer (a service of {service:g} s) | {answered - diary['loaded']:.1f} |")
    print(f"| in all | {answered - began:.1f} |")


def main() -> None:
    """Print the tables of docs/internals/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", type=float, default=0.5, help="seconds of a shard")
    parser.add_argument("--candidates", type=int, default=100, help="two shards each")
    parser.add_argument("--only", choices=("efficiency", "overhead", "killed", "joined"), help="print only this table")
    options = parser.parse_args()
    tables: dict[str, Callable[[], None]] = {
        "efficiency": lambda: efficiency(options.service, options.candidates),
        "overhead": lambda: overhead((0.0, 0.1, 0.5, 1.0), options.service * options.candidates),
        "killed": lambda: killed(options.service, options.candidates),
        "joined": lambda: joined(options.service, options.candidates),
    }
    for name, table in tables.items():
        if options.only in (None, name):
            table()


if __name__ == "__main__":
    main()
