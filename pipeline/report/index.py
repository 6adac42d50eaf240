"""One page for many runs: the exhibits of all, and first of all where LiNeS improves, ties or worsens."""

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
from pipeline.report.tables.results import counted, main_tables
from pipeline.report.tables.table import Table, TableCell
from pipeline.report.tables.verdict import ArmVerdict, verdicts
from pipeline.spec.exhibits import TableExhibit
from tasks.files.atomic import write_whole


@dataclass(frozen=True)
class Shown:
    """An exhibit, or a main table of a run without exhibits.

    Attributes:
        anchor: of its heading.
        exhibit: what is shown.
        standings: what its cells say of LiNeS.
    """

    anchor: str
    exhibit: Table | Figure
    standings: Sequence[Standing]


@dataclass(frozen=True)
class Section:
    """One run on the page.

    Attributes:
        anchor: of its heading.
        name: the run's, with its folder where another run of the page has the same one.
        run: what was run.
        folder: where it lies, from the page's folder, as an address.
        shown: its exhibits, or its main tables where its spec asks for none.
        verdicts: on each LiNeS arm.
        standings: what the verdicts say, where no exhibit compares LiNeS with anything; else they are empty.
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
        """What the run stands on."""
        said = self.run.provenance
        cached = said["counts"].get("shards_from_cache", 0)
        found = [counted(len(said[f"{what}s"]), what) for what in ("expert", "task")]
        found.append(counted(said["counts"]["candidates"], "candidate"))
        found += [f"{said['seconds']['total']:.0f} s"] if "total" in said["seconds"] else []
        found += [f"{counted(cached, 'shard')} known from earlier runs"] if cached else []
        found += [f"{counted(len(said['failures']), 'shard')} failed"] if said["failures"] else []
        return ", ".join([*found, "complete" if said["complete"] else "not complete"])


@dataclass(frozen=True)
class Index:
    """What the templates show.

    Attributes:
        title: the name of the folder that the page lies in.
        sections: the runs, in the order they were given.
    """

    title: str
    sections: Sequence[Section]
    rivals: Sequence[str] = tuple(RIVALS.values())

    @property
    def overall(self) -> list[tuple[str, Standing]]:
        """Each kind of rivals with all that is said of it."""
        rows = [row for section in self.sections for row in section.rows]
        columns = ([claim for said in column for claim in said.claims] for column in zip(*rows, strict=True))
        return [(rival, Standing(claims)) for rival, claims in zip(self.rivals, columns, strict=True)]

    def overview(self) -> Table:
        """The page's first table, for a terminal."""
        rows = []
        for section in self.sections:
            named = [(TableCell(section.name, tone="lead"), section.standings)]
            named += [(TableCell(f"  {shown.exhibit.title}"), shown.standings) for shown in section.shown]
            rows += [(name, *(TableCell(s.plain) for s in said)) for name, said in named]
        return Table("Where LiNeS improves, ties or worsens", "", ("exhibit", *self.rivals), tuple(rows))


def build_index(runs: Sequence[Path], folder: Path) -> tuple[Path, Path, Table]:
    """Write index.html and index.md of these runs into a folder.

    Returns:
        Both files, and the overview for a terminal.

    Raises:
        ValueError: a table of a run is missing or of another schema version.
    """
    page = Index(folder.resolve().name, _named([_section(f"run-{i}", run, folder) for i, run in enumerate(runs, 1)]))
    html = write_whole(folder / "index.html", render.html("index.html.j2", page=page))
    return html, write_whole(folder / "index.md", render.markdown("index.md.j2", page=page)), page.overview()


def common_folder(runs: Sequence[Path]) -> Path:
    """The deepest folder that all runs lie in, for their index.

    Raises:
        ValueError: there is none but the root of the file system.
    """
    common = Path(os.path.commonpath([run.resolve().parent for run in runs]))
    if common == common.parent:
        names = ", ".join(str(run) for run in runs)
        raise ValueError(
            f"{names}: their index needs a folder that holds them all, other than {common}: move one of them"
        )
    return common


def _section(anchor: str, folder: Path, page: Path) -> Section:
    measure = Measure.read(folder)
    soups = soup_page(measure) if is_soup(measure.run) else None
    said = verdicts(measure) if soups is None else soups.verdicts
    parts = exhibits(measure) or (_main(measure) if soups is None else soups.volumes)
    shown = _shown(anchor, measure, parts)
    told = any(standing.claims for part in shown for standing in part.standings)
    own = [] if told else verdict_claims(said, {arm.name: arm for arm in measure.arms})
    link = quote(Path(os.path.relpath(folder.resolve(), page.resolve())).as_posix())
    return Section(anchor, measure.run.name, measure.run, link, shown, said, standings(own))


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
        told = isinstance(part, Table) and isinstance(spec, TableExhibit) and table_claims(spec, part, arms)
        found.append(Shown(f"{anchor}-{i}", part, standings(told or [])))
    return found
