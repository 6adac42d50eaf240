"""The candidates of each search so far: complete ones, judged once, and ones that still lack shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.plan.groups import Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.recipe import Recipe
from pipeline.records.journal import GroupKey
from pipeline.records.ledger import Ledger
from pipeline.run.selection import Candidate, References, answered, complete, judge, references
from search.proposer import Proposal


@dataclass(frozen=True, slots=True)
class PendingCandidate:
    """A candidate that was proposed and is not scored in full."""

    group: Group
    proposal: Proposal
    answered: int
    shards: int


@dataclass
class Survey:
    """The groups of a run so far.

    Attributes:
        references: number of complete references: the pre-trained model and the unchanged experts.
        judged: group of a search -> its complete candidates, failed ones included.
        pending: the other candidates.
        names: recipe id -> label of the first group that tries it.
    """

    references: int = 0
    judged: dict[GroupKey, list[Candidate]] = field(default_factory=dict)
    pending: list[PendingCandidate] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """Number of complete candidates, references included: the rows that candidates.parquet has now."""
        return self.references + sum(map(len, self.judged.values()))


class Surveyor:
    """Surveys a run repeatedly; a candidate that has its values is judged once."""

    def __init__(self, plan: Plan) -> None:
        """Take the plan of the run."""
        self._plan = plan
        self._known: dict[tuple[GroupKey, int, Recipe], Candidate] = {}

    def survey(self, ledger: Ledger, proposals: Mapping[GroupKey, Sequence[Proposal]]) -> Survey:
        """Return every group with its candidates, from the answers and proposals so far."""
        survey = Survey()
        refs = references(self._plan, ledger, "val")
        for reference in self._plan.references:
            survey.names.setdefault(ledger.recipe_id(reference.recipe({})), label(reference))
            survey.references += answered(reference, Proposal(0, {}), ledger)
        for planned in self._plan.searched:
            group = complete(planned, survey.judged)
            if group is not None:
                survey.judged[group.key] = []
                for proposal in proposals.get(group.key, ()):
                    self._add(survey, group, proposal, ledger, refs)
        return survey

    def _add(self, survey: Survey, group: Group, proposal: Proposal, ledger: Ledger, refs: References) -> None:
        recipe = group.recipe(proposal.point)
        survey.names.setdefault(ledger.recipe_id(recipe), label(group))
        candidate = self._known.get((group.key, proposal.number, recipe))
        if candidate is None:
            tasks = validation_tasks(group)
            missing = len(ledger.missing(recipe, tasks, "val"))
            if missing:
                shards = len(ledger.requests(recipe, tasks, "val"))
                survey.pending.append(PendingCandidate(group, proposal, shards - missing, shards))
                return
            candidate = judge(group, proposal, ledger, refs)
            if candidate.values is not None:  # a lost shard may be scored later
                self._known[group.key, proposal.number, recipe] = candidate
        survey.judged[group.key].append(candidate)


def label(group: Group) -> str:
    """Return a group's name for users: its arm, and for an edit the expert."""
    return f"{group.arm} ({group.name})" if group.name else group.arm
