"""What `lines run` and `lines report` end with: a run's report, and the index of several runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from pipeline.console import console, tell
from pipeline.cli.index import index_of


def show_report(folder: Path, place: str) -> int:
    """Write the report, print its main part; status 1 where something failed, or could not be tried because of that.

    Args:
        folder: of the run.
        place: where people find it: the folder, or a URL.
    """
    from pipeline.report.page import build, summary
    from pipeline.cli.tables import rendered

    pages = [f"{place.rstrip('/')}/{path.name}" for path in build(folder)]
    found = summary(folder)
    for table in found.tables:
        console.print(rendered(table))
    for sentence in found.sentences:
        console.print(f"- {sentence}", markup=False)
    provenance = json.loads((folder / "provenance.json").read_text())
    for group in provenance["not_searched"]:
        name = " ".join(filter(None, (group["arm"], group["group"])))
        console.print(f"[red]not searched[/]: {escape(name)}: {escape(group['cause'])}", highlight=False)
    failures = provenance["failures"]
    if failures:
        first = failures[0]
        cause = f"{first['kind']} on {first['task']}: {escape(first['cause'])}"
        console.print(f"[red]{len(failures)} shards failed[/]; the first: {cause}")
    _print_pages("report", pages)
    return 1 if failures or provenance["not_searched"] else 0


def show_index(places: Sequence[str], common: str) -> None:
    """Write the one page for many runs, and print where LiNeS improves, ties or worsens."""
    from pipeline.report.index import build_index
    from pipeline.cli.tables import rendered

    with index_of(places, common) as (folders, folder):
        *pages, overview = build_index(folders, folder)
    console.print(rendered(overview))
    _print_pages("index", [f"{common.rstrip('/')}/{page.name}" for page in pages])


def _print_pages(what: str, pages: Sequence[str]) -> None:
    text = f"\n{' ' * (len(what) + 2)}".join(pages)
    tell(f"{what}: {text}")
