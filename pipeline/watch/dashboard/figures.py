"""The report's figures, drawn for a run in progress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.exhibits import exhibits
from pipeline.report.figures.figure import Figure
from pipeline.report.figures.searched import searched
from pipeline.report.figures.sweeps import sweeps
from pipeline.report.figures.tradeoff import tradeoff
from pipeline.report.soups import is_soup, soup_page


@dataclass(frozen=True)
class LiveFigures:
    """The figures of the results so far.

    Attributes:
        figures: in their order on the page.
        arms: by name, with their colours and symbols.
    """

    figures: Sequence[Figure] = ()
    arms: Mapping[str, ArmResult] = field(default_factory=dict)


def draw(tables: Path) -> LiveFigures:
    """Draw the figures of a folder of tables."""
    measure = Measure.read(tables)
    own = [exhibit for exhibit in exhibits(measure) if isinstance(exhibit, Figure) and exhibit.panels]
    if is_soup(measure.run):
        figures = list(soup_page(measure).fronts)
    else:
        figures = [*tradeoff(measure), *sweeps(measure), *searched(measure)]
    return LiveFigures([*figures, *own], {arm.name: arm for arm in measure.arms})
