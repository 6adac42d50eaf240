"""Cost of a message through Ray for the driver: sending, waiting among many pending ones, and reading an answer.

One actor answers at once, so that only messages are measured; calls of a sleeping actor represent a thousand busy
workers. CPU time is the driver thread's, and in brackets the process's, Ray's threads included. Last, a pool of two
workers whose shards take a few milliseconds: with one shard in each message, and with several. Run:
python -m benchmarks.messages
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import ray

from pipeline.cluster.capacity import ActorShape
from pipeline.cluster.session import local_ray
from pipeline.messages import EvalRequest, ShardScore, WorkerInfo
from pipeline.pools import dispatch
from pipeline.pools.ray_pool import RayPool
from pipeline.recipe import Recipe
from tasks.stats import Stats

REQUEST = EvalRequest(Recipe.make("sum", "linear", 0.1, 0.5), "0123456789abcdef", "cats", "val", 0, 0, 512)
SCORE = ShardScore(REQUEST, Stats(512, 300, 300), np.ones(512, np.bool_), 0.1, (0.1, 1.0), "worker-0")


class Answers:
    """An actor that answers at once."""

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Return a fixed score."""
        return SCORE


class Shards:
    """An evaluator whose shards take a fixed time, as on a GPU."""

    def __init__(self, name: str, seconds: float) -> None:
        """Take the time of a shard."""
        self._name, self._seconds = name, seconds

    def info(self) -> WorkerInfo:
        """Return what this has loaded: nothing."""
        return WorkerInfo(self._name, "cpu", "", {}, "")

    def evaluate(self, request: EvalRequest) -> ShardScore:
        """Sleep, and answer."""
        time.sleep(self._seconds)
        return replace(SCORE, request=request)


class Sleeps:
    """An actor that answers much later, with any number of calls at once."""

    async def evaluate(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def cost(work: Callable[[], object], times: int) -> tuple[float, float, float]:
    """Return milliseconds for each of the `times` steps of `work`: elapsed, CPU of this thread, CPU of the process."""
    clocks = (time.perf_counter, time.thread_time, time.process_time)
    started = [clock() for clock in clocks]
    work()
    elapsed, thread, process = (1000 * (clock() - start) / times for clock, start in zip(clocks, started, strict=True))
    return elapsed, thread, process


def print_cost(what: str, costs: tuple[float, float, float]) -> None:
    """Print one line."""
    elapsed, thread, process = costs
    print(f"{what:46} {elapsed:8.3f} ms  {thread:8.3f} ms ({process:.3f})", flush=True)


def main() -> None:
    """Print one line for each part of a message."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--pending", type=int, nargs="*", default=[20, 200, 2000, 8000])
    parser.add_argument("--shard-ms", type=float, nargs="*", default=[2, 10, 50])
    options = parser.parse_args()
    with local_ray(num_cpus=2):
        print(f"{'':46} {'elapsed':>11}  {'driver':>11} (with Ray's threads)")
        answered = messages(options.messages)
        for pending in options.pending:
            waits(pending, answered)
        for milliseconds in options.shard_ms:
            pools(milliseconds / 1000, options.messages)


def messages(count: int) -> Any:
    """Measure `count` requests and answers in a row; return an answered ref."""
    actor: Any = ray.remote(Answers).options(num_cpus=0).remote()
    ray.get([actor.evaluate.remote(REQUEST) for _ in range(100)])
    refs: list[Any] = []
    print_cost("send a request", cost(lambda: refs.extend(actor.evaluate.remote(REQUEST) for _ in range(count)), count))
    ray.wait(refs, num_returns=count)
    half = count // 2
    print_cost("read an answer, one by one", cost(lambda: [ray.get(r) for r in refs[:half]], half))
    print_cost("read an answer, all in one call", cost(lambda: ray.get(refs[half:]), half))

    def called_back() -> None:
        arrived = SimpleQueue[Any]()
        for _ in range(count):
            actor.evaluate.remote(REQUEST).future().add_done_callback(arrived.put)
        for _ in range(count):
            arrived.get().result()

    print_cost("send, be called back, read", cost(called_back, count))
    print_cost(
        "there and back, one at a time",
        cost(lambda: [ray.get(actor.evaluate.remote(REQUEST)) for _ in range(half)], half),
    )
    return refs[0]


def waits(pending: int, answered: Any) -> None:
    """Measure waiting among `pending` calls."""
    sleeper: Any = ray.remote(Sleeps).options(num_cpus=0, max_concurrency=10_000).remote()
    refs = [sleeper.evaluate.remote(600.0) for _ in range(pending)]
    ray.get(sleeper.evaluate.remote(0.0))
    print_cost(f"wait(timeout=0) among {pending}", cost(lambda: [ray.wait(refs, timeout=0) for _ in range(20)], 20))
    refs.append(answered)
    print_cost(
        f"wait for an answered one of {pending}", cost(lambda: [ray.wait(refs, num_returns=1) for _ in range(20)], 20)
    )
    ray.kill(sleeper)


def pools(seconds: float, count: int) -> None:
    """Measure `count` shards of so many seconds; the two sizes of messages take turns."""
    usual = dispatch._SECONDS
    spent: dict[float, list[float]] = {0.0: [], usual: []}
    pool = RayPool[EvalRequest, ShardScore](partial(Shards, seconds=seconds), ActorShape(2, num_cpus=0))
    answer(pool, 100)
    for dispatch._SECONDS in [*spent, *spent, *spent]:
        started = time.perf_counter()
        answer(pool, count)
        spent[dispatch._SECONDS].append(time.perf_counter() - started)
    pool.close()
    dispatch._SECONDS, ideal = usual, count * seconds / 2
    one, several = (statistics.median(times) / ideal for times in spent.values())
    print(
        f"shards of {1000 * seconds:g} ms: {one:.3f} times the workers' own time, {several:.3f} with several a message"
    )


def answer(pool: RayPool[EvalRequest, ShardScore], count: int) -> None:
    """Have a pool answer `count` requests, 50 for each candidate."""
    pool.submit(replace(REQUEST, recipe_id=str(i // 50), shard=i) for i in range(count))
    left = count
    while left:
        left -= len(pool.wait())


if __name__ == "__main__":
    main()
