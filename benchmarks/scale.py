"""Cost of the driver with thousands of simulated workers, and how busy it keeps them.

Everything but the workers is real: plan, driver, searches, queue, journal on disk, ledger, tables. Simulated workers
take measured times by a virtual clock (`benchmarks.simulation.workers`), and score by a formula. Each row is measured
in its own process, for its memory. CPU seconds are the driver thread's, which other load on the machine hardly changes.
Run: python -m benchmarks.scale
"""

import argparse
import itertools
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.simulation.runs import (
    Case,
    Formula,
    from_file,
    from_journal,
    identity_of,
    keep,
    on_embedded,
    plan_of,
    scaled,
)
from benchmarks.simulation.workers import Messages, Service, SimulatedPool
from pipeline.records.journal import read_history
from pipeline.report.page import build
from pipeline.run.progress import RunProgress
from pipeline.run.run import run


@dataclass(frozen=True, slots=True)
class Row:
    """The measurements of a run.

    Attributes:
        shards: number of scored shards.
        wall: seconds of the virtual clock to the last answer.
        search_wall: part from the search's first ask to its last answer.
        per_second: shards a second of the search.
        efficiency: workers' seconds of work / (workers x wall), over the whole run.
        search_efficiency: the same over the search.
        driver_ms: CPU milliseconds of the driver a shard, messages included.
        own_ms: the same without messages.
        busy: share of the wall time in which the driver did not wait.
        tables: CPU seconds from the last answer to the end: choosing, tables, provenance.
        read: CPU seconds to read the journal back (0: not measured).
        again: CPU seconds to resume the finished run, journal and tables included (0: not measured).
        report: CPU seconds to make the report (0: not measured).
        rss_mb: peak memory of the process; about 130 for a run of one shard.
        journal_mb: size of the journal.
    """

    shards: int
    wall: float
    search_wall: float
    per_second: float
    efficiency: float
    search_efficiency: float
    driver_ms: float
    own_ms: float
    busy: float
    tables: float
    read: float
    again: float
    report: float
    rss_mb: float
    journal_mb: float


class Phases:
    """Records the clock and the workers' totals at the start of each phase."""

    def __init__(self) -> None:
        """Start before the run."""
        self.pool: SimulatedPool | None = None
        self.began: dict[str, tuple[float, float, int]] = {}

    def __call__(self, progress: RunProgress) -> None:
        """Receive the driver's progress."""
        assert self.pool is not None
        if progress.phase not in self.began:
            spent = self.pool.spent
            self.began[progress.phase] = (self.pool.look(), spent.evaluating + spent.rebuilding, spent.answers)


def measure(case: Case, services: list[Service], messages: Messages, again: bool = False) -> Row:
    """Measure one run in a temporary folder."""
    plan = plan_of(case)
    identity, formula, phases = identity_of(case, plan), Formula(case, plan), Phases()
    infos = [identity.worker(f"worker-{i}", "simulated") for i in range(case.workers)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def open_pool() -> SimulatedPool:
            phases.pool = SimulatedPool(infos, services, formula, messages)
            return phases.pool

        go = partial(run, plan, identity, folder, open_pool, None, phases)
        go()
        row = _row(case, phases, (folder / "journal.jsonl").stat().st_size)
        if not again:
            return row
        return replace(row, read=_cpu(read_history, folder), again=_cpu(go), report=_cpu(build, folder))


def _cpu(work: Callable[..., object], *arguments: object) -> float:
    started = time.thread_time()
    work(*arguments)
    return time.thread_time() - started


def _row(case: Case, phases: Phases, journal: int) -> Row:
    assert phases.pool is not None
    spent = phases.pool.spent
    begin, end = phases.began["search"], phases.began["test"]
    seconds, work, answers = (after - before for before, after in zip(begin, end, strict=True))
    driver = spent.last_answer - spent.waited
    return Row(
        shards=spent.answers,
        wall=spent.last_answer,
        search_wall=seconds,
        per_second=answers / seconds,
        efficiency=(spent.evaluating + spent.rebuilding) / (case.workers * spent.last_answer),
        search_efficiency=work / (case.workers * seconds),
        driver_ms=1000 * driver / spent.answers,
        own_ms=1000 * (driver - spent.messages) / spent.answers,
        busy=driver / spent.last_answer,
        tables=phases.pool.now - spent.last_answer,
        read=0.0,
        again=0.0,
        report=0.0,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        journal_mb=journal / 1e6,
    )


HEADER = (
    "arm      workers candidates tasks samples shard |  shards   wall s shards/s  eff. search | driver ms (own)  busy "
    "| tables s  read s again s report s |  RSS MB journal MB"
)


def line(case: Case, row: Row) -> str:
    """Format a row of the table."""
    return (
        f"{case.arm:8} {case.workers:7} {case.candidates:10} {case.tasks:5} {case.samples:7} {case.shard_size:5} | "
        f"{row.shards:7} {row.wall:8.1f} {row.per_second:8.1f} {row.efficiency:5.2f} {row.search_efficiency:6.2f} | "
        f"{row.driver_ms:9.3f} {row.own_ms:5.3f} {row.busy:5.2f} | "
        f"{row.tables:8.1f} {row.read:7.1f} {row.again:7.1f} {row.report:8.1f} | "
        f"{row.rss_mb:7.0f} {row.journal_mb:10.1f}"
    )


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("workers", [1, 10, 100, 1000, 4000]),
        ("candidates", [1000]),
        ("tasks", [20]),
        ("samples", [512]),
        ("shard-size", [512]),
    ):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=default)
    parser.add_argument("--arm", nargs="+", default=["grid"], help="grid, edits, rescaled, tpe, cmaes, random, ...")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1000], help="trials in flight of samplers")
    parser.add_argument(
        "--sample-ms", type=float, nargs="+", default=[2.0], help="of a sample; at 2 a shard of 512 takes a second"
    )
    parser.add_argument("--journal", type=Path, help="take times from this run folder in place of the embedded ViT")
    parser.add_argument("--times", type=Path, help="file of measured times: written if missing, else read")
    parser.add_argument("--send-ms", type=float, default=1000 * Messages().send, help="driver's time to send a request")
    parser.add_argument("--read-ms", type=float, default=1000 * Messages().read, help="driver's time to read an answer")
    parser.add_argument(
        "--pending-us",
        type=float,
        default=1e6 * Messages().pending,
        help="driver's time a wait, for each request in flight",
    )
    parser.add_argument(
        "--gather-us", type=float, default=1e6 * Messages().gather, help="sleep a wait, for each request in flight"
    )
    parser.add_argument(
        "--again", action="store_true", help="also read each journal, resume its run, and make its report"
    )
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    return parser.parse_args()


def main() -> None:
    """Print one row for each combination."""
    options = parsed()
    messages = Messages(options.send_ms / 1e3, options.read_ms / 1e3, options.pending_us / 1e6, options.gather_us / 1e6)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as processes:
        times = from_file(options.times) if options.times and options.times.is_file() else []
        if not times:
            make = partial(from_journal, options.journal) if options.journal else on_embedded
            times = processes.submit(make).result()
        if options.times:
            keep(times, options.times)
        print(HEADER, flush=True)
        for case in cases(options):
            services, factor = scaled(times, case.sample_ms)
            row = processes.submit(measure, case, services, messages, options.again).result()
            print(line(case, row), flush=True)
            if options.json:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**asdict(case), **asdict(row), "factor": factor}) + "\n")


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield every combination of the options."""
    o = options
    axes = (o.workers, o.candidates, o.tasks, o.samples, o.shard_size, o.arm, o.in_flight, o.sample_ms)
    for values in itertools.product(*axes):
        yield Case(*values)


if __name__ == "__main__":
    main()
