"""Sends what a run appends to its journal here on to the store, while the run works."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import LockedError
from pipeline.storage.lease import Lease
from pipeline.storage.segments import Chain, ChainError
from tasks.files.store_errors import RemoteError, UnreachableError

logger = logging.getLogger(__name__)

#: Seconds between looks at the journal: what a lost machine loses.
EVERY = 2.0
#: Seconds for which a store may give no answer, while the run works and at its end, before that ends the run.
PATIENCE, LAST_PATIENCE = 600.0, 60.0
_MOST = 8 << 20
#: Compaction writes the whole log: it pays once the segments are this many, and hold as much as what is compacted.
_SEGMENTS, _MANY_SEGMENTS = 64, 1024


class Shipper:
    """A thread that ships; what goes wrong in it is raised by `check`."""

    def __init__(self, chain: Chain, lease: Lease, journal: Path, begun: Callable[[], None] = lambda: None) -> None:
        """Of a chain that has been read, and the journal that extends it; `start` starts.

        Args:
            chain: where to; only the shipper writes to it from here on.
            lease: renewed meanwhile.
            journal: the file that the run appends to.
            begun: called once the chain has its first lines.
        """
        self._chain, self._lease, self._journal, self._begun = chain, lease, journal, begun
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._silent_since: float | None = None
        self._chunk = b""
        self._thread = threading.Thread(target=self._work, name="shipper", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong, if anything did.

        Raises:
            LockedError: another run has taken this one over.
            RemoteError: the store refuses, or has given no answer for minutes.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ship the rest, and stop.

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
        """Ship what is new; True where that is done, or has failed for good."""
        try:
            # Not what comes meanwhile: each line of that would become a segment of its own.
            size = self._journal.stat().st_size if self._journal.exists() else 0
            while self._chain.end < size and self._next():
                first = self._chain.end == 0
                self._chain.append(self._chunk)
                self._chunk = b""
                if first:
                    self._begun()
            self._lease.renew()
            self._compact()
        except UnreachableError as error:
            return self._gave_up(error, patience)
        except (LockedError, RemoteError, ChainError, OSError) as error:
            self._error = error
            return True
        if self._silent_since is not None:
            logger.warning("the store answers again: what was scored meanwhile is there now")
            self._silent_since = None
        return True

    def _gave_up(self, error: UnreachableError, patience: float) -> bool:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            logger.warning("%s; the run goes on here meanwhile, for at most %.0f s", error, patience)
        if now - self._silent_since > patience:
            self._error = error
            return True
        return False

    def _next(self) -> bool:
        """Whether there are lines to ship: those of a failed try, or the whole ones that came after what is shipped."""
        if not self._chunk:
            with self._journal.open("rb") as file:
                file.seek(self._chain.end)
                data = file.read(_MOST)
                while data and b"\n" not in data and (more := file.read(_MOST)):
                    data += more
            self._chunk = data[: data.rfind(b"\n") + 1]
        return bool(self._chunk)

    def _compact(self) -> None:
        segments, tail = self._chain.segments, self._chain.end - self._chain.compacted
        if segments >= _MANY_SEGMENTS or (segments >= _SEGMENTS and tail >= self._chain.compacted):
            with self._journal.open("rb") as file:
                self._chain.compact(file.read(self._chain.end))
