"""A real Ray cluster on the hosts of `chaos.hosts`, and a driver that is a real process."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from chaos.hosts import Host, Network, network, wait_until

_PORT = 6379
#: Ray declares a node dead after about 6 seconds of silence instead of about 25, so that faults fit into minutes.
_QUICK = {"period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "4", "initial_delay_ms": "3000"}
#: Seconds until Ray is restarted on a node where it has ended.
_PAUSE = 1.0
#: Process titles of an actor: while it evaluates, and at any time.
ANSWERING, ACTOR = "ray::EvaluatorActor.evaluate", "ray::EvaluatorActor"


class RayHosts:
    """A cluster whose first host is the head, without workers, and whose other hosts are nodes."""

    def __init__(self, net: Network, nodes: int, cpus: int) -> None:
        """Make the hosts; `start` starts Ray on them.

        Args:
            net: an empty network.
            nodes: number of nodes besides the head.
            cpus: CPUs of each node, which is the number of its workers.
        """
        self.folder = net.folder
        self.head, *self.nodes = (net.host() for _ in range(1 + nodes))
        self._cpus = cpus
        self._token = secrets.token_hex(32)
        self._ray: dict[Host, subprocess.Popen[bytes]] = {}
        self._ended: dict[Host, float] = {}

    @property
    def address(self) -> str:
        """The address that drivers connect to."""
        return f"{self.head.address}:{_PORT}"

    def start(self) -> None:
        """Start Ray on the head, then on the nodes, and wait for all of them.

        Raises:
            TimeoutError: if Ray does not start.
        """
        options = ["--head", f"--port={_PORT}", "--include-dashboard=false", "--num-cpus=0"]
        self._ray[self.head] = self._start(self.head, *options)
        wait_until(lambda: self._listens(), 120, "Ray's head listens")
        for node in self.nodes:
            self.join(node)
        wait_until(lambda: all(map(self.has_ray, self.nodes)), 120, "nodes have Ray")

    def _start(self, host: Host, *options: str) -> subprocess.Popen[bytes]:
        """Run `ray start`, which ends when one of Ray's processes on that host ends."""
        place = [f"--node-ip-address={host.address}", f"--object-store-memory={100 * 2**20}"]
        with (self.folder / f"ray-{host.number}.log").open("ab") as log:
            return host.run(_command("ray"), "start", "--block", *place, *options, log=log, **self.environment(host))

    def _listens(self) -> bool:
        connect = f"exec 3<>/dev/tcp/{self.head.address}/{_PORT}"
        return self.head.run("bash", "-c", connect, log=subprocess.DEVNULL).wait() == 0

    def environment(self, host: Host) -> dict[str, str]:
        """Return environment variables for a host's processes: Ray's token, a cache on the host's disk."""
        ray = {f"RAY_health_check_{name}": value for name, value in _QUICK.items()}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token, "RAY_USAGE_STATS_ENABLED": "0"}
        places = {"LINES_SWEEP_CACHE": f"{host.disk}/cache", "RAY_TMPDIR": str(host.temporary), "OMP_NUM_THREADS": "1"}
        return ray | token | places

    def join(self, node: Host) -> None:
        """Start Ray on a node."""
        self._ended.pop(node, None)
        self._ray[node] = self._start(node, f"--address={self.address}", f"--num-cpus={self._cpus}")

    def has_ray(self, host: Host) -> bool:
        """Whether Ray runs on the host and has started its raylet."""
        return (
            host.on and host in self._ray and self._ray[host].poll() is None and bool(host.processes("raylet/raylet"))
        )

    def tend(self) -> None:
        """Restart Ray on nodes where it has ended, after a pause, as a service manager does."""
        for node in self.nodes:
            if node.on and self._ray[node].poll() is not None:
                ended = self._ended.setdefault(node, time.monotonic())
                if time.monotonic() - ended > _PAUSE:
                    kill(node.processes())
                    self.join(node)

    def restart(self) -> None:
        """Start a new cluster on the same hosts, after killing everything that runs on them."""
        for host in (self.head, *self.nodes):
            if host.on:
                kill(host.processes())
            else:
                host.power_on()
        self.start()

    def answering(self, nodes: Sequence[Host] = ()) -> list[psutil.Process]:
        """Return the workers that are evaluating a shard, on these nodes or on all."""
        return [process for node in nodes or self.nodes if node.on for process in node.processes(ANSWERING)]

    def log_of_ray(self, host: Host) -> str:
        """Return the output of `ray start` on a host."""
        return (self.folder / f"ray-{host.number}.log").read_text(errors="replace")


@contextmanager
def ray_hosts(nodes: int, cpus: int = 1) -> Iterator[RayHosts]:
    """Yield a running cluster, and stop it at the end.

    Raises:
        RuntimeError: if network namespaces are not permitted on this machine.
    """
    with network() as net:
        made = RayHosts(net, nodes, cpus)
        made.start()
        yield made


class Driver:
    """`lines run SPEC --address` on the head, which can be killed and restarted with the same command."""

    def __init__(self, cluster: RayHosts, spec: Path, out: Path) -> None:
        """Prepare the command without starting it."""
        self._cluster, self.out = cluster, out
        self._words = ["run", str(spec), "--out", str(out), "--address", cluster.address, "--no-cache"]
        self.log = out.with_name(out.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Start the command, the same each time."""
        self.starts += 1
        head = self._cluster.head
        with self.log.open("ab") as log:
            environment = self._cluster.environment(head) | {"COLUMNS": "200"}
            self._process = head.run(_command("lines"), *self._words, log=log, **environment)

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """Send SIGKILL, whatever the driver is doing."""
        assert self._process is not None
        kill(psutil.Process(self._process.pid).children())
        self._process.wait()

    def output(self) -> str:
        """Return everything that it has printed."""
        return self.log.read_text(errors="replace")


def kill(processes: Sequence[psutil.Process]) -> None:
    """Send SIGKILL and wait until the processes have ended.

    Raises:
        TimeoutError: if one is still alive.
    """
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=60)
    if alive:
        raise TimeoutError(f"still alive after SIGKILL: {alive}")


def _command(name: str) -> str:
    """Return the path of a command in the environment that runs this."""
    return os.fspath(Path(sys.executable).with_name(name))
