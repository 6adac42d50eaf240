"""Where each search stands: candidates that are complete, judged once, and those that still lack shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.plan.groups import Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.recipe import Recipe
from pipeline.records.journal import GroupKey
from pipeline.records.ledger import Ledger
from pipeline.run.selection import Candidate, References, complete, judge, references
from search.proposer import Proposal


@dataclass(frozen=True, slots=True)
class Open:
    """A candidate that was proposed and is not scored in full."""

    group: Group
    proposal: Proposal
    answered: int
    shards: int


@dataclass
class Survey:
    """All groups of a run, as the journal has them by now.

    Attributes:
        plan: of the run.
        judged: group -> its complete candidates, failed ones included.
        open: the others.
        names: recipe id -> the arms and experts that try it, for people.
    """

    plan: Plan
    judged: dict[GroupKey, list[Candidate]] = field(default_factory=dict)
    open: list[Open] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """Number of complete candidates."""
        return sum(map(len, self.judged.values()))


class Surveyor:
    """Surveys again and again; a candidate that has its values is not judged a second time."""

    def __init__(self, plan: Plan) -> None:
        """Know nothing yet."""
        self._plan = plan
        self._known: dict[tuple[GroupKey, int, Recipe], Candidate] = {}

    def survey(self, ledger: Ledger, proposals: Mapping[GroupKey, Sequence[Proposal]]) -> Survey:
        """Look at every group.

        Args:
            ledger: what is answered.
            proposals: what was proposed.
        """
        found = Survey(self._plan)
        refs = references(self._plan, ledger, "val")
        for reference in self._plan.references:
            found.names.setdefault(ledger.recipe_id(reference.recipe({})), label(reference))
        for planned in self._plan.searched:
            group = complete(planned, found.judged)
            if group is not None:
                found.judged[group.key] = []
                for proposal in proposals.get(group.key, ()):
                    self._look(found, group, proposal, ledger, refs)
        return found

    def _look(self, found: Survey, group: Group, proposal: Proposal, ledger: Ledger, refs: References) -> None:
        recipe = group.recipe(proposal.point)
        found.names.setdefault(ledger.recipe_id(recipe), label(group))
        candidate = self._known.get((group.key, proposal.number, recipe))
        if candidate is None:
            tasks = validation_tasks(group)
            missing = len(ledger.missing(recipe, tasks, "val"))
            if missing:
                shards = len(ledger.requests(recipe, tasks, "val"))
                found.open.append(Open(group, proposal, shards - missing, shards))
                return
            candidate = judge(group, proposal, ledger, refs)
            if candidate.values is not None:  # a shard that was lost may be scored later
                self._known[group.key, proposal.number, recipe] = candidate
        found.judged[group.key].append(candidate)


def label(group: Group) -> str:
    """A group for people: its arm, and of an edit the expert."""
    return f"{group.arm} ({group.name})" if group.name else group.arm
