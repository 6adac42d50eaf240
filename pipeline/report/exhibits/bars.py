"""Exhibit: accuracy of the chosen candidates, task by task."""

from pipeline.report.data.estimates import Measure
from pipeline.report.exhibits.scope import WORDS, Scope, caption, subjects
from pipeline.report.figures.bars import BarScale, bar_panels, small_width, task_means
from pipeline.report.figures.figure import Figure
from pipeline.report.tables.results import INTERVALS, split_word
from pipeline.report.tables.table import Table, Units, lead
from pipeline.spec.exhibits import ACCURACIES, BarsExhibit


def figure(title: str, exhibit: BarsExhibit, measure: Measure) -> Figure:
    """Return one panel with a group of bars for each task; of many arms, a small panel for each task."""
    arms, units = subjects(measure, exhibit.arms), Units(measure.run.percent)
    scope = Scope.of(measure, arms)
    role, normalised = ACCURACIES[exhibit.metric]
    scale = BarScale(exhibit.split, (role == "target") if normalised else None)
    means = [(arm, task_means(measure, arm, scope.places(arm, role, normalised), scale)) for arm in arms]
    panels = bar_panels("", means, units, f"{WORDS[exhibit.metric]}{units.suffix}")
    tasks = [task for task in measure.run.task_names if any(task in found for _, found in means)]
    rows = [(lead(arm), *(units.mean(found.get(task)) for task in tasks)) for arm, found in means]
    note = caption(exhibit.note, f"{split_word(exhibit.split)}. {INTERVALS}.")
    return Figure(
        title, note, panels, arms, Table(title, "", ("model", *tasks), tuple(rows)), wide=True, small=small_width(arms)
    )
