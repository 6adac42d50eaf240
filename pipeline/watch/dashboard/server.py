"""The dashboard's HTTP server: a few paths, read only, on this machine alone."""

import logging
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from plotly.offline import get_plotlyjs

from pipeline.report.rendering.render import fragment
from pipeline.watch.dashboard.live import Live
from pipeline.watch.dashboard.page import details, status

log = logging.getLogger(__name__)
#: The only address that is ever bound.
ADDRESS = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
#: Ports of the page and of Optuna Dashboard; the first free one is the default.
PAGE_PORTS, STUDY_PORTS = range(8280, 8300), range(8300, 8320)
#: Nothing from other hosts is loaded, and no page of another host may embed or read this one.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_SCRIPT = "text/javascript; charset=utf-8"
Server = Callable[[int], Any]


def is_own_host(host: str | None) -> bool:
    """Return whether a Host header names this machine; a foreign name that resolves to it does not (DNS rebinding)."""
    try:
        return urlsplit(f"//{host or ''}").hostname in _NAMES
    except ValueError:
        return False


def bound(make: Server, ports: range, port: int | None = None) -> Any:
    """Return a server on a port of this machine.

    Args:
        make: makes the server on a port.
        ports: the first free one of these is the default.
        port: the port that the user chose.

    Raises:
        ValueError: if the port is in use or not allowed, or none is free.
    """
    for tried in ports if port is None else (port,):
        try:
            return make(tried)
        except OSError as error:
            reason = error
    if port is None:
        raise ValueError(f"--port: none of {ports.start} to {ports.stop - 1} is free ({reason}): give another one")
    raise ValueError(f"--port {port}: {reason.strerror}: give another one, or leave --port out for one that is free")


def page_server(live: Live, study: Mapping[str, str], port: int) -> ThreadingHTTPServer:
    """Return the server of the page.

    Args:
        live: the run.
        study: `url` of Optuna Dashboard, or ""; `note` on it for the end of the page.
        port: the port to listen on.

    Raises:
        OSError: if the port is not available.
    """
    scripts = files("pipeline.report.rendering").joinpath("templates")
    fixed = {
        "/plotly.js": get_plotlyjs().encode(),
        "/report.js": scripts.joinpath("report.js").read_bytes(),
        "/dashboard.js": scripts.joinpath("dashboard.js").read_bytes(),
    }

    def answer(path: str) -> tuple[str, bytes] | None:
        if path == "/":
            return "text/html; charset=utf-8", _page(live, study)
        if path in ("/state.json", "/figures.json"):
            return "application/json", live.state if path == "/state.json" else live.figures
        return (_SCRIPT, fixed[path]) if path in fixed else None

    return _Server((ADDRESS, port), type("Handler", (_Handler,), {"answer": staticmethod(answer)}))


def _page(live: Live, study: Mapping[str, str]) -> bytes:
    page = live.page
    parts = {"status": status(page), "details": details(page)}
    return fragment("dashboard.html.j2", name=page.name, study=study, parts=parts).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False
    # Two dashboards must not share a port: the system would split the requests between them.
    allow_reuse_port = False


class _Handler(BaseHTTPRequestHandler):
    """Answers GET for the paths that `answer` knows, and nothing else."""

    server_version, sys_version = "lines", ""
    answer: Callable[[str], tuple[str, bytes] | None]

    def do_GET(self) -> None:
        """Answer a request."""
        if not is_own_host(self.headers.get("Host")):
            self._send(403, "text/plain", b"this dashboard answers to 127.0.0.1 and localhost alone\n")
            return
        found = self.answer(urlsplit(self.path).path)
        if found is None:
            self._send(404, "text/plain", b"no such page\n")
        else:
            self._send(200, *found)

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing on the terminal."""
        log.debug(format, *args)
