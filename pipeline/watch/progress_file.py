"""Facts that only a running driver knows, in a file for dashboards: workers, shards from the cache, the rate."""

import json
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.run.progress import RunProgress
from tasks.files.atomic import write_whole

log = logging.getLogger(__name__)
FILE_NAME = "progress.json"
#: Seconds between two writes.
EVERY = 2.0
#: A driver that has not written for this long has stopped, or works on one very long shard in its own process.
_SILENCE = 30.0


@dataclass(frozen=True)
class DriverStatus:
    """The last status that a driver has written.

    Attributes:
        age: seconds since then; infinity without a status.
        from_cache: shards that the score cache answered.
        devices: worker -> its device.
        rate: shards evaluated a second; 0 before the first answers.
    """

    age: float = float("inf")
    from_cache: int = 0
    devices: dict[str, str] = field(default_factory=dict)
    rate: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether a driver seems to be at work."""
        return self.age < _SILENCE


class ProgressFile:
    """Updates a small file in the run's folder; a failed write only costs the dashboard some facts."""

    def __init__(self, folder: Path) -> None:
        """Prepare to write in a run's folder."""
        self._path = folder / FILE_NAME
        self._written = 0.0
        self._works = True

    def __call__(self, progress: RunProgress) -> None:
        """Observe a step of the driver."""
        now = time.monotonic()
        if self._works and now - self._written >= EVERY:
            self._written = now
            self._write(progress)

    def remove(self) -> None:
        """Delete the file when the run ends."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, progress: RunProgress) -> None:
        status = {
            "time": time.time(),
            "from_cache": progress.from_cache,
            "devices": {worker.name: worker.device for worker in progress.workers},
            "rate": progress.rate,
        }
        try:
            write_whole(self._path, json.dumps(status), durable=False)
        except OSError as error:
            self._works = False
            log.warning("%s cannot be written, so a dashboard shows less: %s", self._path, error)


def read_status(folder: Path) -> DriverStatus:
    """Return the last status of the driver of the run in `folder`; an empty one if there is none."""
    try:
        status: dict[str, Any] = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        age = max(0.0, time.time() - float(status["time"]))
        devices = {str(name): str(device) for name, device in status["devices"].items()}
        return DriverStatus(age, int(status["from_cache"]), devices, float(status["rate"]))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return DriverStatus()
