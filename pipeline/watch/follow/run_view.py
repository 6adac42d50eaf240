"""The plan and the answers of a run whose journal is followed."""

from dataclasses import dataclass

from pipeline.plan.plan import Plan
from pipeline.records.append_log import Record
from pipeline.records.journal import History
from pipeline.records.ledger import Ledger
from pipeline.run.forecast import forecast
from pipeline.run.run import plan_and_ledger


@dataclass(frozen=True)
class RunView:
    """A run that has started.

    Attributes:
        header: the first record of its journal.
        plan: its plan.
        ledger: its answers, which grow with the history.
        expected: shards in all, at most.
    """

    header: Record
    plan: Plan
    ledger: Ledger
    expected: int


def view_run(history: History, before: RunView | None) -> RunView | None:
    """Return the run of a history; None before it has started, and `before` unless the header has changed.

    Raises:
        ValueError: if another version of this program wrote the header.
    """
    header = history.header
    if header is None or (before is not None and before.header is header):
        return None if header is None else before
    plan, ledger = plan_and_ledger(header, history.answers, "the journal")
    return RunView(header, plan, ledger, forecast(plan, ledger).shards)
