"""Faults for the hosts of `chaos.ray_hosts`; each proves that it had an effect, or does not count."""

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
    """The fault had no effect, and so does not count."""


@dataclass
class Scene:
    """The cluster and the driver that faults act on."""

    cluster: RayHosts
    driver: Driver
    dice: random.Random


class Fault:
    """Base class of faults: does nothing."""

    #: Its name in the table.
    kind = ""
    #: Whether it acts on a node; otherwise on the head or the driver.
    of_node = True
    #: Shortest and longest duration, in seconds.
    lasts = (0.0, 0.0)

    def __init__(self, scene: Scene, host: Host) -> None:
        """Draw its duration.

        Args:
            scene: what it acts on.
            host: the node, or the head.
        """
        self.scene, self.host = scene, host
        self.seconds = scene.dice.uniform(*self.lasts)

    def begin(self) -> None:
        """Start the fault; raises NoEffectError if there was nothing to break."""

    def over(self, passed: float) -> bool:
        """Whether to end the fault, `passed` seconds after it began."""
        return passed >= self.seconds

    def end(self) -> None:
        """End the fault; raises NoEffectError if it had no effect for all of its duration."""


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
        """Kill one worker of the node."""
        _killed(self.scene.cluster.answering([self.host])[:1])


class RayletKilled(Fault):
    """SIGKILL to the node's raylet; its workers end with it."""

    kind = "raylet killed"

    def begin(self) -> None:
        """Kill it."""
        actors = self.host.processes(ACTOR)
        _killed(self.host.processes("raylet/raylet"))
        wait_until(lambda: not any(p.is_running() for p in actors), 60, "workers end with their raylet")


class NodeKilled(Fault):
    """The node loses its processes and its disk; later a new node starts, with an empty disk."""

    kind = "node killed, a new one later"
    lasts = (1.0, 8.0)

    def begin(self) -> None:
        """Switch the host off."""
        there = self.host.processes()
        _require(bool(there), "nothing ran there")
        self.host.power_off()
        _require(not any(p.is_running() for p in there), "processes outlived their host")

    def end(self) -> None:
        """Switch the host on; `RayHosts.tend` starts Ray."""
        self.host.power_on()


class NetworkCut(Fault):
    """The node is disconnected: connections are neither refused nor answered."""

    kind = "network cut below 10 s"
    lasts = (1.0, 9.0)

    def begin(self) -> None:
        """Disconnect the host."""
        self.host.cut()
        up, self._packets = self.host.link()
        _require(not up, "the link is up")

    def end(self) -> None:
        """Reconnect the host."""
        up, packets = self.host.link()
        self.host.heal()
        _require(not up and packets == self._packets, "packets came through")


class NetworkLongCut(NetworkCut):
    """A cut so long that Ray declares the node dead before it comes back."""

    kind = "network cut for 30 s or more"
    lasts = (30.0, 36.0)


class Frozen(Fault):
    """All of the node's processes are stopped (SIGSTOP), and continue later."""

    kind = "node frozen"
    lasts = (2.0, 12.0)
    share = 0.0

    def begin(self) -> None:
        """Stop the processes."""
        self._workers = self.host.processes(ACTOR)
        _require(bool(self._workers), "no worker there")
        self._used, self._since = self._seconds_used(), time.monotonic()
        self.host.slow(self.share)
        wait_until(lambda: all(map(_stopped, self._workers)), 10, "processes stop")

    def end(self) -> None:
        """Let the processes continue."""
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
    """One worker hangs while it evaluates a shard; its node and its raylet are healthy, so nothing reports it."""

    kind = "worker stands still in mid-shard"
    lasts = (10.0, 20.0)

    def begin(self) -> None:
        """Stop one worker of the node."""
        self._workers = self.scene.cluster.answering([self.host])[:1]
        _require(bool(self._workers), "no such process")
        self._workers[0].send_signal(signal.SIGSTOP)
        wait_until(lambda: _stopped(self._workers[0]), 10, "the process stops")

    def end(self) -> None:
        """Let it continue, if it still exists."""
        with suppress(psutil.NoSuchProcess):
            self._workers[0].send_signal(signal.SIGCONT)


class DiskFull(Fault):
    """The node's disk is full, its cache is lost, and its worker must load again."""

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
        """Free the disk."""
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
    """SIGKILL to `lines run`; the same command resumes the run."""

    kind = "driver killed"
    of_node = False

    def begin(self) -> None:
        """Kill and restart the driver."""
        _require(self.scene.driver.status is None, "it had ended")
        self.scene.driver.kill()
        _require(self.scene.driver.status not in (None, 0), "it ended by itself")
        self.scene.driver.start()


class HeadRayKilled(Fault):
    """SIGKILL to Ray's head process: the driver must notice that the cluster is gone; then a new cluster starts."""

    kind = "Ray's head killed, a new cluster"
    of_node = False

    def begin(self) -> None:
        """Kill it, and check that the driver ends with an error instead of hanging."""
        _killed(self.host.processes("gcs/gcs_server"))
        wait_until(lambda: self.scene.driver.status is not None, 180, "the driver ends when Ray's head is gone")
        _require(self.scene.driver.status != 0, "the driver noticed nothing")
        self.scene.cluster.restart()
        self.scene.driver.start()


class HeadKilled(Fault):
    """The head's host loses power, with the driver on it; then a new cluster starts."""

    kind = "head's host and driver killed, a new cluster"
    of_node = False

    def begin(self) -> None:
        """Switch the host off and on, and restart Ray everywhere."""
        there = self.host.processes()
        self.host.power_off()
        _require(bool(there) and not any(p.is_running() for p in there), "processes outlived their host")
        wait_until(lambda: self.scene.driver.status is not None, 30, "the driver dies with its host")
        self.scene.cluster.restart()
        self.scene.driver.start()


#: Relative frequency of each kind.
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
