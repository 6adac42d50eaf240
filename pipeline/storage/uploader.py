"""Uploads what a run appends to its local journal, while the run works."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import LockedError
from pipeline.records.append_log import read_lines
from pipeline.storage.lease import Lease
from pipeline.storage.segments import Chain, ChainError
from tasks.files.store_errors import RemoteError, UnreachableError

logger = logging.getLogger(__name__)

#: Seconds between looks at the journal: the work that a lost machine loses.
EVERY = 2.0
#: Seconds without an answer from the store that end the run, while it works and at its end.
PATIENCE, LAST_PATIENCE = 600.0, 60.0
_CHUNK = 8 << 20
#: Compaction rewrites the whole log, so it waits for this many segments with as many bytes as are already compacted,
#: or for this many segments of any size.
SEGMENTS, _MANY_SEGMENTS = 64, 1024


class Uploader:
    """A thread that uploads; its errors are raised by `check`."""

    def __init__(self, chain: Chain, lease: Lease, journal: Path, started: Callable[[], None]) -> None:
        """Prepare a thread, which `start` starts.

        Args:
            chain: a chain that has been read; only this uploader writes to it.
            lease: renewed after each upload.
            journal: the file that the run appends to; it starts with the chain's log.
            started: called once the chain has its first lines.
        """
        self._chain, self._lease, self._journal, self._started = chain, lease, journal, started
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._silent_since: float | None = None
        self._chunk = b""
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def start(self) -> None:
        """Start to upload."""
        self._thread.start()

    def check(self) -> None:
        """Raise the error that stopped the upload, if any.

        Raises:
            LockedError: if another driver has resumed this run.
            RemoteError: if the store refuses, or has given no answer for minutes.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Upload the rest, and stop.

        Raises:
            LockedError, RemoteError: as `check`.
        """
        self._stop.set()
        self._thread.join()
        self.check()
        self._silent_since = None
        while not self._step(LAST_PATIENCE):
            time.sleep(1.0)
        self.check()

    def _work(self) -> None:
        while not self._stop.wait(EVERY) and self._error is None:
            self._step(PATIENCE)

    def _step(self, patience: float) -> bool:
        """Upload new lines; return True if that is done or has failed permanently."""
        try:
            # Lines appended during the upload wait for the next step, so that a segment holds many.
            size = self._journal.stat().st_size if self._journal.exists() else 0
            while self._chain.end < size and self._read_chunk():
                first = self._chain.end == 0
                self._chain.append(self._chunk)
                self._chunk = b""
                if first:
                    self._started()
            self._lease.renew()
            self._compact()
        except UnreachableError as error:
            return self._has_given_up(error, patience)
        except (LockedError, RemoteError, ChainError, OSError) as error:
            self._error = error
            return True
        if self._silent_since is not None:
            logger.warning("the store answers again, and holds what was scored meanwhile")
            self._silent_since = None
        return True

    def _has_given_up(self, error: UnreachableError, patience: float) -> bool:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            logger.warning("%s; the run continues on this machine for at most %.0f s", error, patience)
        if now - self._silent_since > patience:
            self._error = error
            return True
        return False

    def _read_chunk(self) -> bool:
        """Return whether there are lines to upload: the chunk of a failed attempt, or the next complete lines."""
        if not self._chunk:
            with self._journal.open("rb") as file:
                file.seek(self._chain.end)
                self._chunk = read_lines(file, _CHUNK)
        return bool(self._chunk)

    def _compact(self) -> None:
        segments, tail = self._chain.segments, self._chain.end - self._chain.compacted
        if segments >= _MANY_SEGMENTS or (segments >= SEGMENTS and tail >= self._chain.compacted):
            with self._journal.open("rb") as file:
                self._chain.compact(file.read(self._chain.end))
