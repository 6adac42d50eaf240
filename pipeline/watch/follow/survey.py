"""The candidates of each search so far: complete ones, judged once, and ones that still lack shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.plan.groups import Group, validation_tasks
from pipeline.plan.plan import Plan
from pipeline.records.journal import GroupKey
from pipeline.records.ledger import Ledger
from pipeline.run.selection import Candidate, References, answered, complete, references
from pipeline.run.walk import Walk
from search.proposer import Proposal


@dataclass(frozen=True, slots=True)
class PendingCandidate:
    """A candidate that was proposed and is not final."""

    group: Group
    proposal: Proposal
    answered: int
    shards: int


@dataclass
class Survey:
    """The groups of a run so far.

    Attributes:
        references: number of complete references: the pre-trained model and the unchanged experts.
        judged: group of a search -> its complete candidates, failed and stopped ones included.
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
    """Surveys a run repeatedly; a candidate that is final is judged once."""

    def __init__(self, plan: Plan) -> None:
        """Take the plan of the run."""
        self._plan = plan
        self._walks: dict[GroupKey, tuple[Ledger, References, Walk]] = {}

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
                walk = self._walk(group, proposals.get(group.key, ()), ledger, refs)
                survey.judged[group.key] = walk.settle().candidates()
                ready = set(walk.ready())
                for proposal in walk.proposals:
                    if proposal.number not in walk.final:
                        survey.pending.append(_pending(walk, proposal, ledger, proposal.number in ready))
                    survey.names.setdefault(ledger.recipe_id(group.recipe(proposal.point)), label(group))
        return survey

    def _walk(self, group: Group, proposals: Sequence[Proposal], ledger: Ledger, refs: References) -> Walk:
        """Return a group's candidates, as known from before; after a failure anew, as lost shards are scored again."""
        known = self._walks.get(group.key)
        if known is None or known[0] is not ledger or known[1] != refs or not _continues(known[2], group, proposals):
            known = self._walks[group.key] = ledger, refs, Walk.of(group, self._plan, proposals, ledger, refs)
        known[2].proposals = proposals
        return known[2]


def _continues(walk: Walk, group: Group, proposals: Sequence[Proposal]) -> bool:
    points = all(proposals[n].point == c.proposal.point for n, c in walk.final.items() if n < len(proposals))
    return walk.group == group and points and not any(c.failure for c in walk.final.values())


def _pending(walk: Walk, proposal: Proposal, ledger: Ledger, ready: bool) -> PendingCandidate:
    split = "val" if walk.order is None or not ready else walk.order.name
    recipe, tasks = walk.group.recipe(proposal.point), validation_tasks(walk.group)
    shards = len(ledger.requests(recipe, tasks, split))
    return PendingCandidate(walk.group, proposal, shards - len(ledger.missing(recipe, tasks, split)), shards)


def label(group: Group) -> str:
    """Return a group's name for users: its arm, and for an edit the expert."""
    return f"{group.arm} ({group.name})" if group.name else group.arm
