"""A Ray head for a test, in a separate process: on loopback, with a dashboard and a token."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

import psutil

_SECONDS = 180
_T = TypeVar("_T")
#: Connections that a proxy passes on at first, so that a client can identify the server.
_WHOLE = 8


class RayHead:
    """A Ray head that runs until `close`."""

    def __init__(self, folder: Path, token: str, env: Mapping[str, str]) -> None:
        """Start it, with its session below `folder`, which must have a short path: Ray's sockets are in it."""
        bin_folder = Path(sys.executable).parent
        self.env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, **env}
        self.env |= {"PATH": os.pathsep.join([str(bin_folder), os.environ["PATH"]]), "RAY_TMPDIR": str(folder)}
        self.env |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        gcs, dashboard, agent = free_ports(3)
        self.gcs, self.dashboard = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        words = ["start", "--head", "--block", "--num-cpus=2", f"--object-store-memory={100 * 2**20}"]
        words += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--port={gcs}"]
        words += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        self._log = (folder / "start.log").open("w+")
        self._process = subprocess.Popen(
            [str(bin_folder / "ray"), *words],
            env=self.env,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until(lambda: self._answers(dashboard) and self._answers(agent))

    def _answers(self, port: int) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    def close(self) -> None:
        """End the head and all its child processes."""
        head = psutil.Process(self._process.pid)
        below = head.children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        for process in [*below, head]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()


def fetched(url: str) -> str:
    """Return the text at a URL."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def wait_until(condition: Callable[[], _T], seconds: float = _SECONDS) -> _T:
    """Poll until the condition is true; returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.2)
    return value


def free_ports(number: int) -> list[int]:
    """Return free ports of loopback."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class CutProxy:
    """Passes connections on to a port of this machine, but breaks every third after the first eight."""

    def __init__(self, port: int) -> None:
        """Listen on a port of loopback."""
        self.broken = 0
        self._target = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for number in count(1):
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if number > _WHOLE and number % 3 == 0:
                self.broken += 1
                near.close()
                continue
            far = socket.create_connection(self._target)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Accept no more connections."""
        self._listening.close()
