"""What only a running driver knows, for those who look on: workers, shards from the cache. Never read by a run."""

import json
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.run.progress import RunProgress
from pipeline.watch.terminal import Rate
from tasks.files.atomic import write_whole

log = logging.getLogger(__name__)
FILE_NAME = "progress.json"
#: Seconds between two writings.
_EVERY = 2.0
#: A driver that has written nothing for so long has stopped, or works on one very long shard in its own process.
_SILENCE = 30.0


@dataclass(frozen=True)
class Said:
    """What a driver said last.

    Attributes:
        age: seconds since then; infinity where it never said anything.
        from_cache: shards that other runs had scored.
        devices: worker -> its device.
        rate: shards evaluated a second since the first of them; 0 before the second.
    """

    age: float = float("inf")
    from_cache: int = 0
    devices: dict[str, str] = field(default_factory=dict)
    rate: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether a driver is at work, as far as can be told."""
        return self.age < _SILENCE


class ProgressFile:
    """Keeps a small file in the run's folder up to date; the run is none the worse for one that cannot be written."""

    def __init__(self, folder: Path) -> None:
        """Write nothing yet."""
        self._path = folder / FILE_NAME
        self._written = 0.0
        self._rate = Rate()
        self._works = True

    def __call__(self, progress: RunProgress) -> None:
        """Take note of a step of the driver."""
        now = time.monotonic()
        rate = self._rate.after(progress)
        if self._works and now - self._written >= _EVERY:
            self._written = now
            self._write(progress, rate)

    def remove(self) -> None:
        """Take the file away, once there is no more to say."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, progress: RunProgress, rate: float) -> None:
        said = {
            "time": time.time(),
            "from_cache": progress.from_cache,
            "devices": {worker.name: worker.device for worker in progress.workers},
            "rate": rate,
        }
        try:
            write_whole(self._path, json.dumps(said))
        except OSError as error:
            self._works = False
            log.warning("%s cannot be written, so that a dashboard shows less: %s", self._path, error)


def read_said(folder: Path) -> Said:
    """What the driver of the run in `folder` said last."""
    try:
        said: dict[str, Any] = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        age = max(0.0, time.time() - float(said["time"]))
        devices = {str(name): str(device) for name, device in said["devices"].items()}
        return Said(age, int(said["from_cache"]), devices, float(said["rate"]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return Said()
