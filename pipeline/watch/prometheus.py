"""Metrics of a run for Prometheus, exported by Ray on the driver's node."""

from collections.abc import Callable, Sequence

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.messages import Failure, ShardScore, WorkerInfo
from pipeline.run.progress import RunProgress

#: Ray puts `ray_` in front of each.
PREFIX = "lines_sweep_"
#: Seconds of a shard: a shard should be a second of work.
_BOUNDARIES = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]
_COUNTERS = {
    "candidates_total": "Candidates scored in full, stopped or failed.",
    "shards_total": "Shards that workers answered, failures included.",
    "cache_hits_total": "Shards that the scores of other runs answered.",
}


def export_to_ray(run: str) -> Callable[[RunProgress], None]:
    """Return an observer that exports progress from when Ray is initialised, which a run may not need.

    Args:
        run: the run's name.
    """
    metrics: RayMetrics | None = None

    def observe(progress: RunProgress) -> None:
        nonlocal metrics
        if metrics is None and ray.is_initialized():
            metrics = RayMetrics(run)
        if metrics is not None:
            metrics(progress)

    return observe


class RayMetrics:
    """Exports a driver's progress; at 2 us a value, every run that starts Ray does so.

    The labels are the run's name and, for some metrics, the kind of failure or of device. Arms and workers are no
    labels, since their number grows with the run.
    """

    def __init__(self, run: str) -> None:
        """Declare the metrics; Ray must be initialised.

        Args:
            run: the run's name.
        """
        self._tags = {"run": run}
        self._exported = dict.fromkeys(_COUNTERS, 0)
        self._known: Sequence[WorkerInfo] = ()
        self._devices: dict[str, str] = {}
        self._counters = {name: Counter(PREFIX + name, text, ("run",)) for name, text in _COUNTERS.items()}
        self._failures = Counter(PREFIX + "failures_total", "Shards that failed, by kind.", ("run", "kind"))
        self._busy = Counter(
            PREFIX + "busy_seconds_total", "Seconds that workers were at work, by kind of device.", ("run", "device")
        )
        self._seconds = Histogram(PREFIX + "shard_seconds", "Seconds of one shard.", _BOUNDARIES, ("run",))
        self._workers = Gauge(PREFIX + "workers", "Workers that have loaded.", ("run",))
        self._queue = Gauge(PREFIX + "shards_outstanding", "Shards asked for and not answered.", ("run",))
        self._left = Gauge(PREFIX + "shards_expected", "Shards of the whole run, at most.", ("run",))

    def __call__(self, progress: RunProgress) -> None:
        """Observe a step of the driver."""
        counts = (progress.candidates_done, progress.shards_evaluated, progress.from_cache)
        for name, count in zip(_COUNTERS, counts, strict=True):
            if count > self._exported[name]:
                self._counters[name].inc(count - self._exported[name], self._tags)
                self._exported[name] = count
        if progress.workers != self._known:  # there may be a thousand: only if they have changed
            self._known = progress.workers
            self._devices = {w.name: w.device.split(":")[0].split(" ")[0] for w in progress.workers}
        for answer in progress.latest:
            self._add_answer(answer, self._devices.get(answer.worker, "unknown"))
        self._workers.set(len(progress.workers), self._tags)
        self._queue.set(progress.shards_asked - progress.shards_done, self._tags)
        self._left.set(progress.shards_total, self._tags)

    def _add_answer(self, answer: ShardScore | Failure, device: str) -> None:
        if isinstance(answer, Failure):
            self._failures.inc(1, {**self._tags, "kind": answer.kind})
        elif seconds := sum(answer.seconds):
            self._seconds.observe(seconds, self._tags)
            self._busy.inc(seconds, {**self._tags, "device": device})
