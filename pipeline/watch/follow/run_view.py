"""A run whose journal has begun: its plan and its answers, which grow as the journal does."""

from pipeline.messages import Identity
from pipeline.plan.plan import make_plan
from pipeline.records.append_log import Record
from pipeline.records.journal import History
from pipeline.records.ledger import Ledger
from pipeline.run.forecast import forecast
from pipeline.spec.load import parse_spec


class Opened:
    """What the header of a journal says."""

    def __init__(self, header: Record, history: History) -> None:
        """Lay out the run.

        Raises:
            ValueError: another version of the program wrote it.
        """
        self.header = header
        self.plan = make_plan(parse_spec(header["spec"], "the journal"))
        identity = Identity.from_json(header["identity"])
        self.ledger = Ledger(identity, self.plan.spec.shard_size, history.answers)
        history.answers = self.ledger.answers  # one and the same from here on: whoever reads on adds to it
        self.expected = forecast(self.plan, self.ledger).shards


def opened(history: History, before: Opened | None) -> Opened | None:
    """The run of a history, None where it has not begun; `before`, unless there is another header by now."""
    if history.header is None:
        return None
    return before if before is not None and before.header is history.header else Opened(history.header, history)
