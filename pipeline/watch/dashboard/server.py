"""The dashboard's HTTP servers: read-only, for browsers on this machine: the page and Optuna Dashboard."""

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from pipeline.report.rendering.render import fragment, plotly_js
from pipeline.watch.dashboard.live import Live
from pipeline.watch.dashboard.page import details, status

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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
    "Server": "lines",
}
_HTML, _JSON, _SCRIPT = "text/html; charset=utf-8", "application/json", "text/javascript; charset=utf-8"


def is_own_host(host: str | None) -> bool:
    """Return whether a Host header names this machine; a foreign name that resolves to it does not (DNS rebinding)."""
    try:
        return urlsplit(f"//{host or ''}").hostname in _NAMES
    except ValueError:
        return False


def bound(make: Callable[[int], Any], ports: range, port: int | None = None) -> Any:
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


def page_server(live: Live, study: Mapping[str, str], port: int) -> WSGIServer:
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
        "/plotly.js": plotly_js(),
        "/report.js": scripts.joinpath("report.js").read_bytes(),
        "/dashboard.js": scripts.joinpath("dashboard.js").read_bytes(),
    }

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/":
            return _send(start, "200 OK", _page(live, study), _HTML)
        if path in ("/state.json", "/figures.json"):
            return _send(start, "200 OK", live.state if path == "/state.json" else live.figures, _JSON)
        if path in fixed:
            return _send(start, "200 OK", fixed[path], _SCRIPT)
        return _send(start, "404 Not Found", b"no such page\n")

    return local_server(answer, port)


def _page(live: Live, study: Mapping[str, str]) -> bytes:
    page = live.page
    parts = {"status": status(page), "details": details(page)}
    return fragment("dashboard.html.j2", name=page.name, study=study, parts=parts).encode()


def _send(start: "StartResponse", code: str, body: bytes, kind: str = "text/plain") -> Iterable[bytes]:
    start(code, list({"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}.items()))
    return [body]


def local_server(app: "WSGIApplication", port: int) -> WSGIServer:
    """Return a server of an application, which only answers GET from a browser on this machine.

    Raises:
        OSError: if the port is not available.
    """

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        if not is_own_host(environ.get("HTTP_HOST")):
            return _send(start, "403 Forbidden", b"this dashboard answers to 127.0.0.1 and localhost alone\n")
        if environ["REQUEST_METHOD"] != "GET":
            return _send(start, "405 Method Not Allowed", b"this dashboard follows a run and cannot change it\n")
        return app(environ, start)

    return make_server(ADDRESS, port, answer, _Server, _Handler)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = False
    # Two dashboards must not share a port: the system would split the requests between them.
    allow_reuse_port = False


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)
