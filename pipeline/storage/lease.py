"""The lease of a run in an object store: an object that its driver renews, so that a second driver refuses to start.

The lease saves work and explains. What keeps a run whole is the exclusive creation of segments.
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
#: Seconds between renewals, and without a renewal until the owner counts as gone.
RENEW, GONE = 15.0, 60.0
LOOK, BEAT = 3.0, 5.0

#: Called with a line for the user.
Notify = Callable[[str], None]


class Lease:
    """The right to write a run, held from `acquire` to `release`.

    A thread renews it, so it stays fresh while the journal is read, a large segment is written or tables are uploaded.
    """

    def __init__(self, place: StoreFolder, owner: str) -> None:
        """Name the lease of the run at `place`; `owner` is an id that no other driver has."""
        self._place, self._owner = place, owner
        self._beat = 0
        self._renewed = 0.0
        self._lock, self._stop = threading.Lock(), threading.Event()

    def acquire(self, notify: Notify) -> None:
        """Take the lease once no living driver holds it; this also shows that the place can be written, exclusively.

        Args:
            notify: called with the reason if this takes long.

        Raises:
            LockedError: if another driver holds it.
            RemoteError: if the store refuses, or cannot create exclusively.
        """
        if not self._place.creates_exclusively:
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
            self._wait_until_gone(notify)
            self._write()
        threading.Thread(target=self._renew_until_stopped, name="lease", daemon=True).start()

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self.renew()
            except UnreachableError:
                continue
            except (LockedError, RemoteError):
                return  # the uploader's next `renew` raises it too

    def _wait_until_gone(self, notify: Notify) -> None:
        """Watch the lease by this machine's clock: clocks of other machines may differ."""
        seen = self._read()
        if seen is None or _has_ended(seen):
            return
        notify(f"{self._place.url}: is held by a run on {seen.get('host')}: waiting {GONE:.0f} s to see if it is alive")
        started = time.monotonic()
        while time.monotonic() - started < GONE:
            time.sleep(LOOK)
            latest = self._read()
            if latest is None:
                return
            if latest != seen:
                raise LockedError(
                    f"{self._place.url}: another run is writing there (on {latest.get('host')}, process "
                    f"{latest.get('pid')}): wait for it, stop it, or give another --out"
                )

    def renew(self) -> None:
        """Renew the lease if it is due.

        Raises:
            LockedError: if another driver has taken the lease.
            RemoteError: if the store refuses.
        """
        with self._lock:
            if time.monotonic() - self._renewed <= RENEW or self._stop.is_set():
                return
            held = self._read()
            if held is not None and held.get("owner") != self._owner:
                raise LockedError(
                    f"{self._place.url}: a run on {held.get('host')} (process {held.get('pid')}) got no sign of life "
                    "from this one and has resumed it: this one ends here"
                )
            self._write()

    def release(self) -> None:
        """Delete the lease if this driver still holds it.

        Raises:
            RemoteError: if the store refuses.
        """
        self._stop.set()
        with self._lock:  # a renewal under way would write it again
            held = self._read()
            if held is not None and held.get("owner") == self._owner:
                self._place.delete([NAME])

    def _write(self) -> None:
        self._beat += 1
        self._place.write(NAME, self._content())
        self._renewed = time.monotonic()

    def _content(self) -> bytes:
        process = {
            "host": socket.gethostname(),
            "system": _system(),
            "pid": os.getpid(),
            "started": _start_of(os.getpid()),
        }
        return json.dumps({"owner": self._owner, "beat": self._beat, **process}).encode()

    def _read(self) -> dict[str, Any] | None:
        data = self._place.read(NAME)
        if data is None:
            return None
        try:
            found = json.loads(data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _system() -> str:
    """Return an id of this boot of this machine and of its process ids, which containers have for themselves."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _has_ended(holder: dict[str, Any]) -> bool:
    """Return whether the holder ran on this machine and no longer runs: then there is nothing to wait for."""
    here, pid = _system(), holder.get("pid")
    if not here or holder.get("system") != here or not isinstance(pid, int):
        return False
    return holder.get("started") != _start_of(pid)
