"""A real S3 server process on 127.0.0.1, and a proxy in front of it that refuses, fails or counts requests."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from s3fs import S3FileSystem

_SERVER = """
import logging, sys, time
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False).start()
while sys.stdin.read(1):
    pass
"""
KEYS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-very-secret-key", "AWS_DEFAULT_REGION": "us-east-1"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@contextmanager
def s3_server() -> Iterator[tuple[int, int]]:
    """Start a server with a bucket named `bucket`, which ends with this process; yield its port and process id."""
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(port)], stdin=subprocess.PIPE, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.1)
        key, secret = KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
        S3FileSystem(key=key, secret=secret, endpoint_url=f"http://127.0.0.1:{port}").mkdir("bucket")
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return False
    return True


class Proxy:
    """Forwards requests to a server, except for methods in `answers`; counts all requests by method.

    If `only` is set, `answers` apply to requests whose path contains it. `passed` is called with the path and body of
    each request that the server has answered, before the answer is forwarded.
    """

    def __init__(self, port: int) -> None:
        self.answers: dict[str, tuple[int, str]] = {}
        self.only = ""
        self.refused = 0
        self.passed: Callable[[str, bytes], None] = lambda path, body: None
        self.counts: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                proxy.counts[self.command] += 1
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                refused = proxy.answers.get(self.command) if proxy.only in self.path else None
                proxy.refused += bool(refused)
                status, headers, content = _refusal(*refused) if refused else _asked(port, self, body)
                if not refused:
                    proxy.passed(self.path, body)
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                size = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", size)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _refusal(status: int, code: str) -> tuple[int, list[tuple[str, str]], bytes]:
    text = f"<Error><Code>{code}</Code><Message>refused for a test</Message></Error>"
    return status, [("Content-Type", "application/xml")], text.encode()


def _asked(port: int, asked: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(asked.command, asked.path, body, dict(asked.headers.items()))
    response = connection.getresponse()
    answer = response.status, response.getheaders(), response.read()
    connection.close()
    return answer
