"""From a run's tables to one self-contained HTML file and its Markdown twin. Free of torch and Ray."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.data.estimates import Measure
from pipeline.report.data.run import Run
from pipeline.report.exhibits import exhibits
from pipeline.report.figures.bars import bars
from pipeline.report.figures.depths import depths
from pipeline.report.figures.figure import Figure
from pipeline.report.figures.searched import searched
from pipeline.report.figures.sweeps import sweeps
from pipeline.report.figures.tradeoff import tradeoff
from pipeline.report.rendering import render
from pipeline.report.soups import SoupPage, is_soup, soup_page
from pipeline.report.tables.chosen import chosen_table
from pipeline.report.tables.hypervolumes import front_tables
from pipeline.report.tables.provenance import READERS, origin_tables, spec_text
from pipeline.report.tables.results import failure_table, main_tables, result_tables
from pipeline.report.tables.table import Table
from pipeline.report.tables.verdict import ArmVerdict, verdicts
from tasks.files.atomic import write_whole


@dataclass(frozen=True, slots=True)
class Summary:
    """The report's main part, for the terminal.

    Attributes:
        title: the run's name.
        sentences: the verdicts in words, one a LiNeS arm; of a run of rewards, its warnings first and what the
            intervals speak of last.
        tables: the spec's own tables, the paper-like tables on test (on validation where an interrupted run has no test
            scores yet) or the hypervolumes of a run of rewards, then the numbers behind the sentences.
    """

    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """All that the templates of most runs show; `every` names the arms whose candidates were all scored on test."""

    run: Run
    exhibits: Sequence[Table | Figure]
    verdicts: Sequence[ArmVerdict]
    test: Sequence[Table]
    val: Sequence[Table]
    tradeoff: Sequence[Figure]
    fronts: Sequence[Table]
    figures: Sequence[Figure]
    every: Sequence[str]
    chosen: Table
    failures: Table
    origin: Sequence[Table]
    spec: str
    readers: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RewardPage:
    """All that the templates of a run of rewards show."""

    run: Run
    exhibits: Sequence[Table | Figure]
    soups: SoupPage
    failures: Table
    origin: Sequence[Table]
    spec: str
    readers: Sequence[tuple[str, str]]


def build(run: Path) -> tuple[Path, Path]:
    """Write report.html and report.md into the run folder, each by way of a temporary file.

    Raises:
        ValueError: a table of the run is missing or of another schema version.
    """
    measure = Measure.read(run)
    page = _reward_page(measure) if is_soup(measure.run) else _page(measure)
    name = "soups" if isinstance(page, RewardPage) else "report"
    html = write_whole(run / "report.html", render.html(f"{name}.html.j2", page=page))
    return html, write_whole(run / "report.md", _markdown(f"{name}.md.j2", page))


def summary(run: Path) -> Summary:
    """The verdicts and the main tables.

    Raises:
        ValueError: a table of the run is missing or of another schema version.
    """
    measure = Measure.read(run)
    own = [exhibit for exhibit in exhibits(measure) if isinstance(exhibit, Table)]
    if is_soup(measure.run):
        return _soup_summary(measure, own)
    rows = {split: main_tables(measure, split) for split in ("test", "val")}
    said = verdicts(measure)
    return Summary(measure.run.name, _spoken(said), (*own, *(rows["test"] or rows["val"]), *(v.table for v in said)))


def _soup_summary(measure: Measure, own: Sequence[Table]) -> Summary:
    soups = soup_page(measure)
    warnings = (f"Warning: {said}" for said in soups.warnings)
    tables = [*own, *soups.volumes, *([soups.references] if soups.references else [])]
    sentences = (*warnings, *_spoken(soups.verdicts), soups.note)
    return Summary(measure.run.name, sentences, (*tables, *(v.table for v in soups.verdicts)))


def _spoken(said: Sequence[ArmVerdict]) -> tuple[str, ...]:
    return tuple(f"{v.arm.name}: {' '.join(v.sentences)}" for v in said)


def _page(measure: Measure) -> Page:
    run = measure.run
    return Page(
        run=run,
        exhibits=exhibits(measure),
        verdicts=verdicts(measure),
        test=result_tables(measure, "test"),
        val=result_tables(measure, "val"),
        tradeoff=tradeoff(measure),
        fronts=front_tables(measure),
        figures=[*sweeps(measure), *searched(measure), *depths(measure), *bars(measure)],
        every=[name for name, arm in run.provenance["spec"]["arms"].items() if arm["test"] == "every"],
        chosen=chosen_table(measure),
        failures=failure_table(measure),
        origin=origin_tables(run),
        spec=spec_text(run),
        readers=READERS,
    )


def _reward_page(measure: Measure) -> RewardPage:
    run = measure.run
    return RewardPage(
        run=run,
        exhibits=exhibits(measure),
        soups=soup_page(measure),
        failures=failure_table(measure),
        origin=origin_tables(run),
        spec=spec_text(run),
        readers=READERS,
    )


def _markdown(template: str, page: Page | RewardPage) -> str:
    longest = max((len(ticks) for ticks in re.findall("`+", page.spec)), default=0)
    return render.markdown(template, page=page, fence="`" * max(3, longest + 1))
