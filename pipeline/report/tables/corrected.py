"""The table of what validation is worth: its choices corrected, and their drops to test, predicted and measured."""

from collections.abc import Sequence

from pipeline.report.data.arms import ArmResult
from pipeline.report.data.choices import CorrectedChoice, corrected_choices
from pipeline.report.data.run import Run
from pipeline.report.tables.table import NONE, Table, TableCell, Units, decimal, lead

#: Changes are those of the objective times 100.
_TIMES_100 = Units(percent=True)
_VALUES = Units(percent=False, digits=4)
_NOTE = (
    "The best of many candidates looks better on validation than it is. Here the choice is made again in resamples of "
    "the validation samples, and evaluated on the samples that each leaves out; of an edit, the mean over experts. "
    "Validation: the sum of objectives. Corrected: what it is worth, with a 95% interval. Change to test: below 0 is a "
    "drop of the objective times 100, as predicted from validation alone, with the 95% interval of what test will "
    "show; then as test shows it, with the references of validation."
)
_STOPPED = (
    " At least: candidates that were stopped have no scores to choose by in a resample; without them half to two "
    "thirds of the drop are predicted."
)


def corrected_table(run: Run, arms: Sequence[ArmResult]) -> Table:
    """Return one row for each arm in which validation chose among several candidates."""
    found = corrected_choices(run, arms)
    note = _NOTE + _STOPPED * any(choice.stopped for choice in found)
    columns = ("arm", "candidates", "validation", "corrected", "change to test")
    return Table("What the choices are worth", note, columns, tuple(_row(choice) for choice in found))


def _row(choice: CorrectedChoice) -> tuple[TableCell, ...]:
    stopped = f"(and {choice.stopped} stopped)" if choice.stopped else ""
    about = (lead(choice.arm), TableCell(str(choice.candidates), stopped))
    if choice.predicted is None:
        return (*about, TableCell(NONE), TableCell(NONE), TableCell(NONE, f"(none: {choice.reason})"))
    predicted = choice.predicted
    return (
        *about,
        TableCell(decimal(predicted.value, 4)),
        _VALUES.mean(predicted.corrected),
        TableCell(drop_in_words(choice)),
    )


def drop_in_words(choice: CorrectedChoice) -> str:
    """Return "predicted −0.8 [−1.9, +0.1], measured −1.1"."""
    assert choice.predicted is not None
    drop = choice.predicted.drop
    least = "at least " if choice.stopped else ""
    words = f"predicted {least}{_TIMES_100.number(drop.value, True)} {_TIMES_100.range(drop, True)}"
    return words if choice.measured is None else f"{words}, measured {_TIMES_100.number(choice.measured, True)}"
