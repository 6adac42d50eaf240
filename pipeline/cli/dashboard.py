"""The command `lines dashboard`: a run followed in a browser, while it works or afterwards."""

import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.console import print_result, user_errors

if TYPE_CHECKING:
    from pipeline.watch.dashboard.live import Live
    from pipeline.watch.dashboard.study import Studies


def dashboard(
    run: Annotated[str, typer.Argument(help="A run's folder, a path or a URL; it need not exist yet.", metavar="RUN")],
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the page.", show_default="a free one from 8280 on")
    ] = None,
    study: Annotated[bool, typer.Option(help="Open Optuna Dashboard on the run's searches too.")] = True,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
) -> None:
    """Serve a run as a page that follows it, on this machine alone; Ctrl-C ends it, and the run does not notice.

    From elsewhere, forward the port: ssh -L 8280:127.0.0.1:8280 HOST, and open http://127.0.0.1:8280 there.
    """
    with user_errors():
        from pipeline.watch.dashboard.live import Live
        from pipeline.watch.dashboard.server import ADDRESS, PAGE_PORTS, bound, page_server
        from pipeline.watch.dashboard.study import Studies

        studies = Studies()
        live = Live(run, studies)
        with _studied(studies, study) as shown:
            server = bound(lambda chosen: page_server(live, shown, chosen), PAGE_PORTS, port)
            url = f"http://{ADDRESS}:{server.server_address[1]}"
            _say(run, url, shown)
            if open_browser:
                webbrowser.open(url)
            with suppress(KeyboardInterrupt), _followed(live), server:
                server.serve_forever()


@contextmanager
def _followed(live: "Live") -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=live.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


@contextmanager
def _studied(studies: "Studies", wanted: bool) -> Iterator[dict[str, str]]:
    """Optuna Dashboard beside the page: its address, and what the page says of it."""
    from pipeline.watch.dashboard.server import ADDRESS, STUDY_PORTS, bound
    from pipeline.watch.dashboard.study import MISSING, serve, study_server

    if not wanted or find_spec("optuna_dashboard") is None:
        yield {"url": "", "note": MISSING if wanted else ""}
        return
    server = bound(lambda chosen: study_server(studies, chosen), STUDY_PORTS)
    serve(server)
    try:
        yield {"url": f"http://{ADDRESS}:{server.server_address[1]}/dashboard", "note": ""}
    finally:
        server.shutdown()
        server.server_close()


def _say(run: str, url: str, shown: dict[str, str]) -> None:
    lines = [f"{run}: {url}"]
    lines += [f"Optuna Dashboard: {shown['url']}"] if shown["url"] else []
    lines += [shown["note"]] if shown["note"] else []
    for line in lines:
        print_result(line)
