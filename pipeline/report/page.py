"""Turn a run's tables into one self-contained HTML file and a Markdown file with the same content."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.data.arena import rankings
from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import Run
from pipeline.report.exhibits import exhibits
from pipeline.report.figures.arena import arena_figures
from pipeline.report.figures.bars import bars
from pipeline.report.figures.depths import depths
from pipeline.report.figures.figure import Figure
from pipeline.report.figures.searched import searched
from pipeline.report.figures.sweeps import sweeps
from pipeline.report.figures.tradeoff import tradeoff
from pipeline.report.rendering import render
from pipeline.report.soups import SoupPage, is_soup, soup_page
from pipeline.report.tables.arena import arena_tables
from pipeline.report.tables.chosen import chosen_table
from pipeline.report.tables.corrected import corrected_table
from pipeline.report.tables.edges import edge_warnings
from pipeline.report.tables.hypervolumes import front_tables
from pipeline.report.tables.predicted import Predicted, predicted
from pipeline.report.tables.provenance import READERS, origin_tables, spec_text
from pipeline.report.tables.results import failure_table, main_tables, result_tables
from pipeline.report.tables.seeds import seeds_table
from pipeline.report.tables.table import Table
from pipeline.report.tables.verdict import ArmVerdict, verdict_note, verdicts
from tasks.files.atomic import write_whole


@dataclass(frozen=True, slots=True)
class Summary:
    """The report's main part, for the terminal.

    Attributes:
        title: the run's name.
        sentences: the verdicts in words, one for each LiNeS arm, then whether the gate of an inspection was right; of a
            run of rewards, its warnings first and the meaning of the intervals last.
        tables: the spec's own tables; those of its arena; the paper's tables on test (on validation if an interrupted
            run has no test scores yet) or the hypervolumes of a run of rewards; then the numbers of the verdicts.
    """

    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The sections that every report has."""

    run: Run
    exhibits: Sequence[Table | Figure]
    failures: Table
    origin: Sequence[Table]
    spec: str
    readers: Sequence[tuple[str, str]] = READERS


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyPage(Page):
    """The report of a run of accuracies."""

    arena: Sequence[Table]
    contests: Sequence[Figure]
    verdicts: Sequence[ArmVerdict]
    note: str
    predicted: Predicted | None
    warnings: Sequence[str]
    test: Sequence[Table]
    val: Sequence[Table]
    tradeoff: Sequence[Figure]
    fronts: Sequence[Table]
    figures: Sequence[Figure]
    chosen: Table
    worth: Sequence[Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardPage(Page):
    """The report of a run of rewards."""

    soups: SoupPage


def build(run: Path) -> tuple[Path, Path]:
    """Write report.html and report.md into the run folder; each file is replaced as a whole.

    Example:
        >>> html, markdown = build(Path("runs/quickstart"))

    Args:
        run: a folder with the tables of a run, finished or not.

    Returns:
        The paths of both files.

    Raises:
        ValueError: if a table of the run is missing or has another schema version.
    """
    return build_of(Measure.read(run))


def build_of(measure: Measure) -> tuple[Path, Path]:
    """Write the report of a run that was read into its folder, and return the paths of both files."""
    page, folder = _page(measure), measure.run.folder
    name = "soups" if isinstance(page, RewardPage) else "report"
    longest = max((len(ticks) for ticks in re.findall("`+", page.spec)), default=0)
    html = write_whole(folder / "report.html", render.html(f"{name}.html.j2", page=page))
    markdown = render.markdown(f"{name}.md.j2", page=page, fence="`" * max(3, longest + 1))
    return html, write_whole(folder / "report.md", markdown)


def summary(run: Path) -> Summary:
    """Return the verdicts and the main tables.

    Raises:
        ValueError: if a table of the run is missing or has another schema version.
    """
    return summary_of(Measure.read(run))


def summary_of(measure: Measure) -> Summary:
    """Return the verdicts and the main tables of a run that was read."""
    own = [exhibit for exhibit in exhibits(measure) if isinstance(exhibit, Table)]
    if is_soup(measure.run):
        return _soup_summary(measure, own)
    rows = {split: main_tables(measure, split) for split in ("test", "val")}
    found = verdicts(measure)
    tables = (
        *own,
        *arena_tables(measure, rankings(measure)),
        *(rows["test"] or rows["val"]),
        *(v.table for v in found),
    )
    checked = predicted(measure)
    return Summary(measure.run.name, (*_sentences(found), *([checked.sentence] if checked else [])), tables)


def figures(measure: Measure) -> list[Figure]:
    """Return the figures of the report, the spec's own ones first."""
    own = [exhibit for exhibit in exhibits(measure) if isinstance(exhibit, Figure)]
    if is_soup(measure.run):
        soups = soup_page(measure)
        return [*own, *soups.fronts, *soups.training]
    return [*own, *arena_figures(measure, rankings(measure)), *tradeoff(measure), *_figures(measure)]


def _figures(measure: Measure) -> list[Figure]:
    return [*sweeps(measure), *searched(measure), *depths(measure), *bars(measure)]


def _soup_summary(measure: Measure, own: Sequence[Table]) -> Summary:
    soups = soup_page(measure)
    warnings = (f"Warning: {warning}" for warning in soups.warnings)
    tables = [*own, *soups.volumes, *([soups.references] if soups.references else [])]
    sentences = (*warnings, *_sentences(soups.verdicts), soups.note)
    return Summary(measure.run.name, sentences, (*tables, *(v.table for v in soups.verdicts)))


def _sentences(found: Sequence[ArmVerdict]) -> tuple[str, ...]:
    return tuple(f"{v.arm.name}: {' '.join(v.sentences)}" for v in found)


def _page(measure: Measure) -> Page:
    run = measure.run
    own, failures, origin, spec = exhibits(measure), failure_table(measure), origin_tables(run), spec_text(run)
    if is_soup(run):
        soups = soup_page(measure)
        return RewardPage(run=run, exhibits=own, failures=failures, origin=origin, spec=spec, soups=soups)
    contests = rankings(measure)
    return AccuracyPage(
        run=run,
        exhibits=own,
        failures=failures,
        origin=origin,
        spec=spec,
        arena=arena_tables(measure, contests),
        contests=arena_figures(measure, contests),
        verdicts=verdicts(measure),
        note=verdict_note(run),
        predicted=predicted(measure),
        warnings=edge_warnings(measure),
        test=result_tables(measure, "test"),
        val=result_tables(measure, "val"),
        tradeoff=tradeoff(measure),
        fronts=front_tables(measure),
        figures=_figures(measure),
        chosen=chosen_table(measure),
        worth=[table for table in (corrected_table(run, measure.arms), seeds_table(measure)) if table.rows],
    )
