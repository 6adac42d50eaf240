"""Exhibit: lambda of each block of the chosen candidates, mean over the experts of an edit."""

import numpy as np

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.estimates import Measure
from pipeline.report.exhibits.scope import caption, subjects
from pipeline.report.figures.depths import depth_line, depth_panels, profile, small_width
from pipeline.report.figures.figure import Figure
from pipeline.report.tables.table import Table, TableCell, lead
from pipeline.spec.exhibits import CoefficientsExhibit


def figure(title: str, exhibit: CoefficientsExhibit, measure: Measure) -> Figure:
    """Return one panel with one line an arm; of many arms, a small panel for each."""
    arms = subjects(measure, exhibit.arms)
    found = [(arm, mean) for arm in arms if (mean := _mean_profile(measure, arm)) is not None]
    traces = [depth_line(arm, arm.name, [round(value, 5) for value in mean[1:]]) for arm, mean in found]
    panels = depth_panels(traces) if traces else []
    how = (
        "λ multiplies the combined task vector. Edited experts: the mean over the choices for each of them. Learned "
        "coefficients: their mean over the experts."
    )
    note = caption(exhibit.note, how)
    rows = [(lead(arm), *(TableCell(f"{value:.3f}") for value in mean)) for arm, mean in found]
    blocks = len(measure.run.provenance["layers"]["block_sizes"])
    columns = ("arm", "outside", *(f"block {i + 1}" for i in range(blocks)))
    return Figure(title, note, panels, arms, Table(title, "", columns, tuple(rows)), small=small_width(traces))


def _mean_profile(measure: Measure, arm: ArmResult) -> list[float] | None:
    """Lambda outside the blocks, then of each block; None if nothing was chosen."""
    chosen = [candidate for group in arm.groups if (candidate := arm.chosen(group)) is not None]
    profiles = [found for candidate in chosen if (found := profile(measure, candidate)) is not None]
    return [float(value) for value in np.mean(profiles, axis=0)] if profiles else None
