"""The command `lines report`: the report of a run, and the index of several runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.completion import complete_run
from pipeline.console import console, print_result, styled, user_errors
from pipeline.quick_imports import quick_imports


def show_report(folder: Path, place: str) -> int:
    """Write the report and print its main part.

    Args:
        folder: the run folder.
        place: the run's address for the user: the folder, or a URL.

    Returns:
        The exit status: 1 if a shard failed, or a group could not be searched because of a failure.
    """
    with quick_imports():
        from pipeline.cli.tables import rendered
        from pipeline.records.provenance_file import FILE_NAME, read_provenance
        from pipeline.report.data.estimates import Measure
        from pipeline.report.page import build_of, summary_of

    measure = Measure.read(folder)
    pages = [f"{place.rstrip('/')}/{path.name}" for path in build_of(measure)]
    found = summary_of(measure)
    for table in found.tables:
        console.print(rendered(table))
    for sentence in found.sentences:
        console.print(f"- {sentence}")
    provenance = read_provenance(folder / FILE_NAME)
    lost = {"not searched": provenance["not_searched"], "nothing chosen": provenance.get("nothing_chosen", [])}
    for what, groups in lost.items():
        for group in groups:
            name = " ".join(filter(None, (group["arm"], group["group"])))
            console.print(styled("red", what, f": {name}: {group['cause']}"), highlight=False)
    failures = provenance["failures"]
    if failures:
        first = failures[0]
        cause = f"{first['kind']} on {first['task']}: {first['cause']}"
        console.print(styled("red", f"{len(failures)} shards failed", f"; the first: {cause}"))
    _print_pages("report", pages)
    return 1 if failures or provenance["not_searched"] else 0


def show_index(places: Sequence[str], common: str) -> None:
    """Write the index of many runs, and print where LiNeS improves, ties or worsens."""
    from pipeline.cli.index import index_of
    from pipeline.cli.tables import rendered
    from pipeline.report.index import build_index

    with index_of(places, common) as (folders, folder):
        *pages, overview = build_index(folders, folder)
    console.print(rendered(overview))
    _print_pages("index", [f"{common.rstrip('/')}/{page.name}" for page in pages])


def _print_pages(what: str, pages: Sequence[str]) -> None:
    text = f"\n{' ' * (len(what) + 2)}".join(pages)
    print_result(f"{what}: {text}")


def report(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run folders, as paths or URLs.", metavar="RUN...", autocompletion=complete_run),
    ],
) -> None:
    """Rewrite a run's tables and report from its journal; a run in progress is reported as far as it is scored.

    With several runs, also write index.html and index.md into the folder that contains them.
    """
    from pipeline.cli.index import common_place
    from pipeline.run.run import rebuild
    from pipeline.storage.run_folder import run_folder

    with user_errors():
        places = _runs(runs)
        common = common_place(places) if len(places) > 1 else None
        for place in places:
            with run_folder(place, write=True) as folder:
                rebuild(folder)
                show_report(folder, place)
        if common is not None:
            show_index(places, common)


def _runs(places: list[str]) -> list[str]:
    """The places, each once.

    Raises:
        ValueError: if one of them has no run; raised before any report is written.
    """
    from pipeline.records.journal import FILE_NAME
    from pipeline.storage.run_folder import run_folder

    runs: dict[Path, str] = {}
    others = []
    for place in places:
        with run_folder(place) as folder:
            runs.setdefault(folder.resolve(), place)
            if not (folder / FILE_NAME).is_file():
                others.append(place)
    if others:
        hint = "; for a folder of runs, name the folders in it: FOLDER/*/" if len(places) > 1 else ""
        raise ValueError(f"{', '.join(others)}: no run here: there is no {FILE_NAME}{hint}")
    return list(runs.values())
