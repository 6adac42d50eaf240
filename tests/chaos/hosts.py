"""Simulate a network of hosts on one machine, to break them on purpose; each host is a set of Linux namespaces.

A host has its own network (an address on an isolated switch), its own processes and its own mounts: `disk`, a small
tmpfs that no other host sees, a tmpfs for temporary files, and /dev/shm. The rest of the file system is shared, as with
NFS. A host exists while the pipe to its first process is open, and the kernel kills all its processes with the first:
nothing is left behind, however this process ends. Needs root, and `ip` and `unshare` (iproute2, util-linux).
"""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

_NETWORK = "10.213.0"
_DISK, _TEMPORARY = 64 * 2**20, 256 * 2**20
_PREFIX = "lines-hosts-"
#: Seconds of one stop-and-continue cycle of a slowed host.
_SLICE = 0.5


def permitted() -> str:
    """Return why hosts cannot be made on this machine, or "" if they can."""
    if missing := [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]:
        return f"{', '.join(missing)}: not installed"
    tried = subprocess.run(
        [*_UNSHARE, "sh", "-c", "mount -t tmpfs lines /dev/shm && ip link add type veth"],
        capture_output=True,
        text=True,
    )
    return "" if tried.returncode == 0 else f"network namespaces are not permitted here: {tried.stderr.strip()}"


_UNSHARE = ["unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork"]


@dataclass
class Network:
    """A switch and the hosts on it; made by `network`."""

    folder: Path
    switch: int
    hosts: list["Host"] = field(default_factory=list)

    def host(self, disk: int = _DISK) -> "Host":
        """Add a host and start it, with a disk of `disk` bytes."""
        made = Host(self, len(self.hosts) + 1, disk)
        self.hosts.append(made)
        made.power_on()
        return made


@contextmanager
def network() -> Iterator[Network]:
    """Yield a network without hosts; at the end all hosts that were added are removed.

    Raises:
        RuntimeError: if namespaces are not permitted on this machine.
    """
    if reason := permitted():
        raise RuntimeError(reason)
    _remove_stale()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    with (folder / "owner").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        for disk in ("d", "t"):
            (folder / disk).mkdir()
        switch = _first_process(
            ["unshare", "--net"], "ip link set lo up && ip link add sw type bridge && ip link set sw up"
        )
        made = Network(folder, switch.pid)
        try:
            yield made
        finally:
            for host in made.hosts:
                host.power_off()
            _end(switch)
            shutil.rmtree(folder, ignore_errors=True)


def _remove_stale() -> None:
    """Remove folders whose owner was killed, which frees its lock."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        with suppress(OSError), (folder / "owner").open() as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _first_process(namespaces: list[str], commands: str) -> subprocess.Popen[str]:
    """Run commands in new namespaces, which exist while the pipe to this process is open."""
    # SIGCHLD is ignored so that the kernel reaps orphans, which would otherwise stay zombies of this first process.
    script = f"{commands} && echo up && exec env --ignore-signal=CHLD cat > /dev/null"
    pipe = subprocess.PIPE
    made = subprocess.Popen([*namespaces, "sh", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert made.stdout is not None and made.stderr is not None
    if made.stdout.readline() != "up\n":
        raise RuntimeError(f"could not make namespaces: {commands}: {made.stderr.read()}")
    return made


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


class Host:
    """One host, which can be switched off, disconnected and slowed, and whose disk can be filled."""

    def __init__(self, net: Network, number: int, disk: int) -> None:
        """Create the host switched off; `Network.host` starts it."""
        self.net, self.number, self._size = net, number, disk
        self.address = f"{_NETWORK}.{number}"
        self.disk, self.temporary = net.folder / "d", net.folder / "t"
        self._power: subprocess.Popen[str] | None = None
        self._first = 0
        self._slowed: _Slowed | None = None
        self._entered: list[subprocess.Popen[bytes]] = []

    @property
    def on(self) -> bool:
        """Whether the host is switched on."""
        return self._power is not None

    def power_on(self) -> None:
        """Start with an empty disk and only the first process."""
        assert self._power is None
        sizes = {self.disk: self._size, self.temporary: _TEMPORARY, "/dev/shm": _TEMPORARY}
        mounts = " && ".join(f"mount -t tmpfs -o size={size} lines {place}" for place, size in sizes.items())
        self._power = _first_process(_UNSHARE, f"{mounts} && ip link set lo up")
        (self._first,) = (child.pid for child in psutil.Process(self._power.pid).children())
        port, address = self._port, f"{self.address}/24"
        self._switch("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(self._first))
        self._switch("ip", "link", "set", port, "master", "sw", "up")
        # A route to nowhere, by which Ray finds its own address.
        for words in (f"addr add {address} dev eth0", "link set eth0 up", "route add default dev eth0"):
            self.run("ip", *words.split()).wait()

    def power_off(self) -> None:
        """Kill every process at once and discard the disk."""
        if self._power is not None:
            self.quick()
            os.kill(self._first, signal.SIGKILL)
            _end(self._power)
            self._power = None
            self._switch("ip", "link", "delete", self._port, check=False)  # the kernel also does it, but later

    def run(self, *words: str, log: IO[bytes] | int | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command in the host, with its output in `log`."""
        enter = ["nsenter", "--target", str(self._first), "--net", "--mount", "--pid"]
        # Ray's settings are the host's own: outside, Ray may be restricted to loopback.
        variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | environment
        made = subprocess.Popen([*enter, *words], env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._entered = [p for p in self._entered if p.poll() is None] + [made]
        return made

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Return the processes of the host, without the first, whose command line contains `title`."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                inside = os.readlink(f"/proc/{process.pid}/ns/pid") == os.readlink(f"/proc/{self._first}/ns/pid")
                if inside and process.pid != self._first and title in " ".join(process.cmdline()):
                    found.append(process)
        return found

    # Network.

    @property
    def _port(self) -> str:
        return f"port{self.number}"

    def _switch(self, *words: str, check: bool = True) -> None:
        subprocess.run(["nsenter", "--target", str(self.net.switch), "--net", *words], check=check, capture_output=True)

    def cut(self) -> None:
        """Disconnect the host."""
        self._switch("ip", "link", "set", self._port, "down")

    def heal(self) -> None:
        """Reconnect the host."""
        self._switch("ip", "link", "set", self._port, "up")

    def link(self) -> tuple[bool, int]:
        """Return whether the host is connected, and how many packets it has received."""
        enter = ["nsenter", "--target", str(self._first), "--net", "ip", "-s", "-j", "link", "show", "eth0"]
        found: dict[str, Any] = json.loads(subprocess.run(enter, check=True, capture_output=True).stdout)[0]
        return found["operstate"] == "UP", found["stats64"]["rx"]["packets"]

    # Speed.

    def slow(self, share: float) -> None:
        """Let its processes run for a `share` of the time; 0 freezes them."""
        self.quick()
        self._slowed = _Slowed(self, share)
        self._slowed.start()

    def quick(self) -> None:
        """Let its processes run freely again."""
        if self._slowed is not None:
            self._slowed.over.set()
            self._slowed.join()
            self._slowed = None
            for entered in self._entered:  # nsenter stops itself when its child is stopped
                entered.send_signal(signal.SIGCONT)

    # Disk.

    def fill(self) -> int:
        """Write until the disk is full; return the number of bytes written."""
        with (self.outside / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**16))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return file.tell()

    def free(self) -> None:
        """Remove what `fill` wrote."""
        (self.outside / "filler").unlink()

    @property
    def outside(self) -> Path:
        """The path of its disk outside the host."""
        return Path(f"/proc/{self._first}/root{self.disk}")


class _Slowed(threading.Thread):
    """Stops a host's processes for a part of every half second."""

    def __init__(self, host: Host, share: float) -> None:
        super().__init__(daemon=True)
        self._host, self._share = host, share
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self._send(signal.SIGSTOP)
            self.over.wait(_SLICE * (1 - self._share))
            if self._share:
                self._send(signal.SIGCONT)
                self.over.wait(_SLICE * self._share)
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        for process in self._host.processes():
            with suppress(psutil.Error):
                process.send_signal(number)


def wait_until(holds: Any, seconds: float, what: str) -> None:
    """Poll until `holds()` is true.

    Raises:
        TimeoutError: if it is still false after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
