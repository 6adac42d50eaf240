"""One page for many runs: where LiNeS improves, ties or worsens, then the exhibits of every run."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import Run
from pipeline.report.exhibits import asked, exhibits
from pipeline.report.figures.figure import Figure
from pipeline.report.rendering import render
from pipeline.report.soups import is_soup, soup_page
from pipeline.report.tables.claims import RIVALS, Standing, standings, table_claims, verdict_claims
from pipeline.report.tables.results import main_tables
from pipeline.report.tables.table import Table, TableCell, counted
from pipeline.report.tables.verdict import ArmVerdict, verdicts
from pipeline.spec.exhibits import TableExhibit
from tasks.files.atomic import write_whole


@dataclass(frozen=True)
class Shown:
    """An exhibit, or a main table of a run without exhibits.

    Attributes:
        anchor: of its heading.
        exhibit: what is shown.
        standings: the results of LiNeS in its cells.
    """

    anchor: str
    exhibit: Table | Figure
    standings: Sequence[Standing]


@dataclass(frozen=True)
class Section:
    """One run on the page.

    Attributes:
        anchor: of its heading.
        name: of the run, with its folder if another run of the page has the same name.
        run: the run.
        folder: its address, relative to the page's folder.
        shown: its exhibits, or its main tables if its spec asks for none.
        verdicts: on each LiNeS arm.
        standings: the results of LiNeS in the verdicts; empty if an exhibit compares LiNeS with anything.
    """

    anchor: str
    name: str
    run: Run
    folder: str
    shown: Sequence[Shown]
    verdicts: Sequence[ArmVerdict]
    standings: Sequence[Standing]

    @property
    def rows(self) -> list[Sequence[Standing]]:
        """The run's rows in the overview: its own, then one for each that is shown."""
        return [self.standings, *(shown.standings for shown in self.shown)]

    @property
    def facts(self) -> str:
        """The size of the run, in words."""
        origin = self.run.provenance
        cached = origin["counts"].get("shards_from_cache", 0)
        found = [counted(len(origin[f"{what}s"]), what) for what in ("expert", "task")]
        found.append(counted(origin["counts"]["candidates"], "candidate"))
        found += [f"{origin['seconds']['total']:.0f} s"] if "total" in origin["seconds"] else []
        found += [f"{counted(cached, 'shard')} from earlier runs"] if cached else []
        found += [f"{counted(len(origin['failures']), 'shard')} failed"] if origin["failures"] else []
        return ", ".join([*found, "complete" if origin["complete"] else "not complete"])


@dataclass(frozen=True)
class Index:
    """The content of the page.

    Attributes:
        title: the name of the page's folder.
        sections: the runs, in the given order.
        rivals: the kinds of rivals, in words.
    """

    title: str
    sections: Sequence[Section]
    rivals: Sequence[str] = tuple(RIVALS.values())

    @property
    def overall(self) -> list[tuple[str, Standing]]:
        """Each kind of rival with the results of LiNeS against it over all runs."""
        rows = [row for section in self.sections for row in section.rows]
        columns = ([claim for standing in column for claim in standing.claims] for column in zip(*rows, strict=True))
        return [(rival, Standing(claims)) for rival, claims in zip(self.rivals, columns, strict=True)]

    def overview(self) -> Table:
        """Return the page's first table, for a terminal."""
        rows = []
        for section in self.sections:
            named = [(TableCell(section.name, tone="lead"), section.standings)]
            named += [(TableCell(f"  {shown.exhibit.title}"), shown.standings) for shown in section.shown]
            rows += [(name, *(TableCell(s.plain) for s in found)) for name, found in named]
        return Table("Where LiNeS improves, ties or worsens", "", ("exhibit", *self.rivals), tuple(rows))


def build_index(runs: Sequence[Path], folder: Path) -> tuple[Path, Path, Table]:
    """Write index.html and index.md of these runs into a folder.

    Example:
        >>> runs = [Path("runs/table1"), Path("runs/table2")]
        >>> html, markdown, overview = build_index(runs, common_folder(runs))

    Args:
        runs: run folders, whose reports the index links to.
        folder: the folder to write into; it must contain the runs for the links to work elsewhere.

    Returns:
        The paths of both files, and the overview for a terminal.

    Raises:
        ValueError: if a table of a run is missing or has another schema version.
    """
    page = Index(folder.resolve().name, _named([_section(f"run-{i}", run, folder) for i, run in enumerate(runs, 1)]))
    html = write_whole(folder / "index.html", render.html("index.html.j2", page=page))
    return html, write_whole(folder / "index.md", render.markdown("index.md.j2", page=page)), page.overview()


def common_folder(runs: Sequence[Path]) -> Path:
    """Return the deepest folder that contains all runs, for their index.

    Raises:
        ValueError: if only the root of the file system contains them all.
    """
    common = Path(os.path.commonpath([run.resolve().parent for run in runs]))
    if common == common.parent:
        names = ", ".join(str(run) for run in runs)
        raise ValueError(
            f"{names}: their index needs a folder other than {common} that contains them all: move one of them"
        )
    return common


def _section(anchor: str, folder: Path, page: Path) -> Section:
    measure = Measure.read(folder)
    soups = soup_page(measure) if is_soup(measure.run) else None
    found = verdicts(measure) if soups is None else soups.verdicts
    parts = exhibits(measure) or (_main(measure) if soups is None else soups.volumes)
    shown = _shown(anchor, measure, parts)
    compared = any(standing.claims for part in shown for standing in part.standings)
    own = [] if compared else verdict_claims(found, {arm.name: arm for arm in measure.arms})
    link = quote(Path(os.path.relpath(folder.resolve(), page.resolve())).as_posix())
    return Section(anchor, measure.run.name, measure.run, link, shown, found, standings(own))


def _named(sections: Sequence[Section]) -> list[Section]:
    count = Counter(section.name for section in sections)
    return [replace(s, name=f"{s.name} ({unquote(s.folder)})") if count[s.name] > 1 else s for s in sections]


def _main(measure: Measure) -> list[Table]:
    return main_tables(measure, "test") or main_tables(measure, "val")


def _shown(anchor: str, measure: Measure, parts: Sequence[Table | Figure]) -> list[Shown]:
    arms, specs = {arm.name: arm for arm in measure.arms}, asked(measure.run)
    found = []
    for i, part in enumerate(parts, 1):
        spec = specs.get(part.title)
        claims = isinstance(part, Table) and isinstance(spec, TableExhibit) and table_claims(spec, part, arms)
        found.append(Shown(f"{anchor}-{i}", part, standings(claims or [])))
    return found
