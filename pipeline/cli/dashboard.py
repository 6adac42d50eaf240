"""The command `lines dashboard`: a page that follows a run, while it works or afterwards."""

import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.completion import complete_run
from pipeline.console import print_result, user_errors

if TYPE_CHECKING:
    from pipeline.watch.dashboard.study import Studies


def dashboard(
    run: Annotated[
        str,
        typer.Argument(
            help="The run's folder, a path or a URL; may not exist yet.", metavar="RUN", autocompletion=complete_run
        ),
    ],
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the page.", show_default="a free one from 8280 on")
    ] = None,
    study: Annotated[bool, typer.Option(help="Start Optuna Dashboard on the run's searches too.")] = True,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
) -> None:
    """Serve a page that follows a run, on this machine alone; Ctrl-C ends it and does not affect the run.

    From another machine, forward the port: ssh -L 8280:127.0.0.1:8280 HOST, and open http://127.0.0.1:8280 there.
    """
    with user_errors():
        from pipeline.watch.dashboard.live import Live
        from pipeline.watch.dashboard.server import ADDRESS, PAGE_PORTS, bound, page_server
        from pipeline.watch.dashboard.study import Studies

        studies, stop = Studies(), threading.Event()
        live = Live(run, studies)
        with _optuna_dashboard(studies, study) as link:
            server = bound(lambda chosen: page_server(live, link, chosen), PAGE_PORTS, port)
            url = f"http://{ADDRESS}:{server.server_address[1]}"
            print_result(f"{run}: {url}")
            if link["url"] or link["note"]:
                print_result(f"Optuna Dashboard: {link['url']}" if link["url"] else link["note"])
            if open_browser:
                webbrowser.open(url)
            try:
                with suppress(KeyboardInterrupt), server:
                    threading.Thread(target=live.run, args=(stop,), daemon=True).start()
                    server.serve_forever()
            finally:
                stop.set()


@contextmanager
def _optuna_dashboard(studies: "Studies", wanted: bool) -> Iterator[dict[str, str]]:
    """Serve Optuna Dashboard; yield its `url`, or a `note` for the page if it is not installed."""
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
