"""What may befall the hosts of `chaos.ray_hosts`; each fault proves that it had an effect, or does not count."""

import errno
import random
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from chaos.hosts import Host, wait_until
from chaos.ray_hosts import ACTOR, Driver, RayHosts, kill


class NoEffectError(RuntimeError):
    """The fault found nothing to break, or broke nothing: it does not count."""


@dataclass
class Scene:
    """What faults befall."""

    cluster: RayHosts
    driver: Driver
    dice: random.Random


class Fault:
    """One fault; by itself it has none of these effects."""

    #: For the table.
    kind = ""
    #: It befalls a node; else the head or the driver.
    of_node = True
    #: Seconds that it lasts, at least and at most.
    lasts = (0.0, 0.0)

    def __init__(self, scene: Scene, host: Host) -> None:
        """Not begun yet.

        Args:
            scene: what it befalls.
            host: the node, or the head.
        """
        self.scene, self.host = scene, host
        self.seconds = scene.dice.uniform(*self.lasts)

    def begin(self) -> None:
        """Break it. Raises NoEffectError: nothing was there to be broken."""

    def over(self, passed: float) -> bool:
        """Whether it is time to mend it, so many seconds after it began."""
        return passed >= self.seconds

    def end(self) -> None:
        """Mend it. Raises NoEffectError: it was not broken all the while."""


def _require(effect: bool, what: str) -> None:
    if not effect:
        raise NoEffectError(what)


def _killed(victims: Sequence[psutil.Process]) -> None:
    """Kill some processes, all of which were there."""
    _require(bool(victims) and all(p.is_running() for p in victims), "no such process")
    kill(victims)
    _require(not any(p.is_running() for p in victims), "it lives")


class WorkerKilled(Fault):
    """SIGKILL to a worker in the middle of a shard."""

    kind = "worker killed in mid-shard"

    def begin(self) -> None:
        """Pick one of the node's."""
        _killed(self.scene.cluster.answering([self.host])[:1])


class RayletKilled(Fault):
    """SIGKILL to the node's part of Ray; its workers end with it."""

    kind = "raylet killed"

    def begin(self) -> None:
        """The one process."""
        actors = self.host.processes(ACTOR)
        _killed(self.host.processes("raylet/raylet"))
        wait_until(lambda: not any(p.is_running() for p in actors), 60, "workers end with their raylet")


class NodeKilled(Fault):
    """Power off: all of its processes and its disk are gone; later a new node, with an empty disk."""

    kind = "node killed, a new one later"
    lasts = (1.0, 8.0)

    def begin(self) -> None:
        """Switch off."""
        there = self.host.processes()
        _require(bool(there), "nothing ran there")
        self.host.power_off()
        _require(not any(p.is_running() for p in there), "processes outlived their host")

    def end(self) -> None:
        """Switch on; the cluster's caretaker does the rest."""
        self.host.power_on()


class NetworkCut(Fault):
    """The cable is pulled: nothing is refused, nothing is answered."""

    kind = "network cut below 10 s"
    lasts = (1.0, 9.0)

    def begin(self) -> None:
        """Pull it."""
        self.host.cut()
        up, self._packets = self.host.link()
        _require(not up, "the link is up")

    def end(self) -> None:
        """Plug it in again."""
        up, packets = self.host.link()
        self.host.heal()
        _require(not up and packets == self._packets, "packets came through")


class NetworkLongCut(NetworkCut):
    """So long that Ray gives the node up, and it comes back."""

    kind = "network cut for 30 s or more"
    lasts = (30.0, 36.0)


class Frozen(Fault):
    """All of the node's processes are stopped (SIGSTOP), and go on later as if nothing had been."""

    kind = "node frozen"
    lasts = (2.0, 12.0)
    share = 0.0

    def begin(self) -> None:
        """Stop them."""
        self._workers = self.host.processes(ACTOR)
        _require(bool(self._workers), "no worker there")
        self._used, self._since = self._seconds_used(), time.monotonic()
        self.host.slow(self.share)
        wait_until(lambda: all(map(_stopped, self._workers)), 10, "processes stop")

    def end(self) -> None:
        """Let them go on."""
        used, passed = self._seconds_used() - self._used, time.monotonic() - self._since
        self.host.quick()
        _require(used <= (self.share + 0.2) * passed + 0.5, f"ran for {used:.1f} of {passed:.1f} s")

    def _seconds_used(self) -> float:
        times = []
        for process in self._workers:
            with suppress(psutil.Error):
                times.append(process.cpu_times().user)
        return max(times, default=0.0)


def _stopped(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_STOPPED
    return True


class Slowed(Frozen):
    """The node's processes run for a tenth of the time."""

    kind = "node slowed to a tenth"
    lasts = (5.0, 20.0)
    share = 0.1


class WorkerStopped(Fault):
    """One worker stands still in mid-shard, and nothing says so: its node is in order, and so is its Ray."""

    kind = "worker stands still in mid-shard"
    lasts = (10.0, 20.0)

    def begin(self) -> None:
        """Stop one of the node's."""
        self._workers = self.scene.cluster.answering([self.host])[:1]
        _require(bool(self._workers), "no such process")
        self._workers[0].send_signal(signal.SIGSTOP)
        wait_until(lambda: _stopped(self._workers[0]), 10, "the process stops")

    def end(self) -> None:
        """Let it go on, if it is there still."""
        with suppress(psutil.NoSuchProcess):
            self._workers[0].send_signal(signal.SIGCONT)


class DiskFull(Fault):
    """Not a byte is left on the node's disk, its cache is lost, and its worker must load anew."""

    kind = "disk full as a worker loads"
    lasts = (5.0, 15.0)

    def begin(self) -> None:
        """Fill the disk, then kill the node's workers."""
        workers = self.host.processes(ACTOR)
        _require(bool(workers), "no worker there")
        shutil.rmtree(self.host.outside / "cache", ignore_errors=True)
        _require(self.host.fill() > 0, "it was full before")
        _require(_is_full(self.host), "a byte more found room")
        kill(workers)

    def end(self) -> None:
        """Make room again."""
        self.host.free()


def _is_full(host: Host) -> bool:
    try:
        with (host.outside / "one-more").open("wb") as file:
            file.write(bytes(2**16))
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        (host.outside / "one-more").unlink(missing_ok=True)
    return False


class DriverKilled(Fault):
    """SIGKILL to `lines run`; the same command again takes the run up."""

    kind = "driver killed"
    of_node = False

    def begin(self) -> None:
        """In whatever it is doing."""
        _require(self.scene.driver.status is None, "it had ended")
        self.scene.driver.kill()
        _require(self.scene.driver.status not in (None, 0), "it ended by itself")
        self.scene.driver.start()


class HeadRayKilled(Fault):
    """SIGKILL to Ray's own head process: the cluster is gone, the driver must notice; then all anew."""

    kind = "Ray's head killed, a new cluster"
    of_node = False

    def begin(self) -> None:
        """The driver ends by itself, with an error; no hanging."""
        _killed(self.host.processes("gcs/gcs_server"))
        wait_until(lambda: self.scene.driver.status is not None, 180, "the driver ends when Ray's head is gone")
        _require(self.scene.driver.status != 0, "the driver noticed nothing")
        self.scene.cluster.restart()
        self.scene.driver.start()


class HeadKilled(Fault):
    """The head's host loses power, and the driver with it; then a new cluster."""

    kind = "head's host and driver killed, a new cluster"
    of_node = False

    def begin(self) -> None:
        """Switch off, switch on, start all of Ray anew."""
        there = self.host.processes()
        self.host.power_off()
        _require(bool(there) and not any(p.is_running() for p in there), "processes outlived their host")
        wait_until(lambda: self.scene.driver.status is not None, 30, "the driver dies with its host")
        self.scene.cluster.restart()
        self.scene.driver.start()


#: Kinds and how often each is drawn, relative to the others.
ODDS: dict[type[Fault], int] = {
    WorkerKilled: 22,
    RayletKilled: 8,
    NodeKilled: 12,
    NetworkCut: 16,
    NetworkLongCut: 4,
    Frozen: 8,
    Slowed: 8,
    WorkerStopped: 6,
    DiskFull: 7,
    DriverKilled: 6,
    HeadRayKilled: 1,
    HeadKilled: 2,
}
