"""Who works on a run in an object store: an object that its driver renews, so that a second one keeps off.

It saves work and explains; it is not what keeps a run whole: that is the exclusive creation of segments.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import LockedError
from tasks.files.object_store import StoreFolder
from tasks.files.store_errors import RemoteError, UnreachableError

NAME = "lease.json"
#: Seconds between renewals, and without one after which the owner counts as gone.
RENEW, GONE = 15.0, 60.0
_LOOK, _BEAT = 3.0, 5.0

Say = Callable[[str], None]


class Lease:
    """The right to write a run; held, and renewed by a thread, from `acquire` to `release`.

    Whatever takes long in between, the first reading, a large segment, the upload of tables, the lease stays fresh.
    """

    def __init__(self, place: StoreFolder, owner: str) -> None:
        """Of a run at `place`; `owner` is an id of this driver alone."""
        self._place, self._owner = place, owner
        self._beat = 0
        self._renewed = 0.0
        self._lock, self._stop = threading.Lock(), threading.Event()

    def acquire(self, say: Say) -> None:
        """Take it, once no living driver holds it. Shows too that the place can be written, and created exclusively.

        Args:
            say: told why this takes long.

        Raises:
            LockedError: another driver holds it.
            RemoteError: the store refuses, or cannot create exclusively.
        """
        if not self._place.creates_alone:
            raise RemoteError(
                f"{self._place.url}: stores of this kind cannot create exclusively (they look, and then write), so two "
                "runs could spoil each other: use s3:// or gs://, or --out with a folder"
            )
        if self._place.create(NAME, self._content()):
            if self._place.create(NAME, self._content()):
                self._place.delete([NAME])
                raise RemoteError(
                    f"{self._place.url}: the store overwrites where it should create (it ignores If-None-Match), so "
                    "two runs could spoil each other: use another store, or --out with a folder"
                )
            self._renewed = time.monotonic()
        else:
            self._wait_until_gone(say)
            self._write()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def _keep(self) -> None:
        while not self._stop.wait(_BEAT):
            try:
                self.renew()
            except UnreachableError:
                continue
            except (LockedError, RemoteError):
                return  # the shipper's next `renew` meets the same, and tells

    def _wait_until_gone(self, say: Say) -> None:
        """Watch the lease by this machine's own clock: those of others need not agree with it."""
        seen = self._read()
        if seen is None or _ended(seen):
            return
        say(f"{self._place.url}: is held by a run on {seen.get('host')}: seeing for {GONE:.0f} s whether it lives")
        started = time.monotonic()
        while time.monotonic() - started < GONE:
            time.sleep(_LOOK)
            now = self._read()
            if now is None:
                return
            if now != seen:
                raise LockedError(
                    f"{self._place.url}: another run is writing there (on {now.get('host')}, process {now.get('pid')}"
                    "): wait for it, stop it, or give another --out"
                )

    def renew(self) -> None:
        """Say that this driver lives, where that is due.

        Raises:
            LockedError: another driver has taken the lease.
            RemoteError: the store refuses.
        """
        with self._lock:
            if time.monotonic() - self._renewed <= RENEW or self._stop.is_set():
                return
            held = self._read()
            if held is not None and held.get("owner") != self._owner:
                raise LockedError(
                    f"{self._place.url}: a run on {held.get('host')} (process {held.get('pid')}) took this one for "
                    "dead and has gone on with it: this one ends here"
                )
            self._write()

    def release(self) -> None:
        """Give it back, if it is still this driver's.

        Raises:
            RemoteError: the store refuses.
        """
        self._stop.set()
        with self._lock:  # a renewal that is under way would write it again
            held = self._read()
            if held is not None and held.get("owner") == self._owner:
                self._place.delete([NAME])

    def _write(self) -> None:
        self._beat += 1
        self._place.write(NAME, self._content())
        self._renewed = time.monotonic()

    def _content(self) -> bytes:
        return json.dumps({"owner": self._owner, "beat": self._beat, **_this_process()}).encode()

    def _read(self) -> dict[str, Any] | None:
        data = self._place.read(NAME)
        if data is None:
            return None
        try:
            found = json.loads(data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "system": _system(), "pid": os.getpid(), "started": _started(os.getpid())}


def _system() -> str:
    """Names this start of this machine, and the process ids that are valid here: containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None where there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _ended(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this very machine and has ended: then there is nothing to wait for."""
    here, pid = _system(), holder.get("pid")
    if not here or holder.get("system") != here or not isinstance(pid, int):
        return False
    return holder.get("started") != _started(pid)
