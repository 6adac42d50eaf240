"""The command `lines history`: plot a metric over runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import Json
from pipeline.cli.completion import complete_arm, complete_run
from pipeline.console import console, print_result, user_errors


def history(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Finished runs, as paths or URLs, or files of baselines.",
            metavar="RUN...",
            autocompletion=complete_run,
        ),
    ],
    metric: Annotated[str, typer.Option(help="target, control or ood (means over tasks), or a task.")] = "target",
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="An arm to follow; repeatable.", show_default="all except controls", autocompletion=complete_arm
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page, an .html file; a Markdown file is written next to it.")] = Path(
        "history.html"
    ),
    as_json: Json = False,
) -> None:
    """Plot a metric over runs in the order of their start, with intervals and the changes between runs."""
    with user_errors():
        from pipeline.cli.tables import rendered
        from pipeline.regress.baseline import read_place
        from pipeline.regress.history import change_lines, history_table, make_history, trend_table
        from pipeline.regress.history_page import write_history

        if out.suffix != ".html":
            raise ValueError(f"--out: must end in .html, got {out}")
        found = make_history([read_place(run) for run in dict.fromkeys(runs)], metric, arm or [])
        pages = write_history(found, out)
        if as_json:
            table = history_table(found, changes_too=True)
            cells = [{name: cell.plain for name, cell in zip(table.columns, row, strict=True)} for row in table.rows]
            print_result(json.dumps(cells, indent=2))
            return
        for table in (history_table(found, changes_too=False), trend_table(found)):
            console.print(rendered(table))
        for line in change_lines(found):
            print_result(f"- changed, {line}")
        print_result(f"history: {', '.join(map(str, pages))}")
