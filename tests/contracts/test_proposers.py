"""Proves that every proposer repeats itself exactly, also when replayed after a crash at any point, in any process."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from search.proposer import Outcome, Proposal, Proposer
from search.samplers import SAMPLERS
from search.sampling import SearchConfig, make_proposer
from search.space import Choice, Float, Int, Point, Space

#: Small warm-ups and populations, so that 16 trials reach the part of each sampler that has something to forget.
OPTIONS = {
    "tpe": {"startup_trials": 4},
    "gp": {"startup_trials": 4},
    "cmaes": {"population_size": 4},
    "nsga2": {"population_size": 4},
    "nsga3": {"population_size": 4},
}
TRIALS = 16
NUMERIC = (Float("beta", 0.0, 1.0), Float("gamma", 0.1, 10.0, log=True), Float("alpha", 0.0, 1.0, step=0.1))
STEPPED = Space((Float("alpha", 0.0, 1.0, step=0.25), Int("k", 1, 5, step=2), Choice("f", ("linear", "sqrt"))))


@dataclass(frozen=True)
class Case:
    sampler: str
    num_objectives: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.sampler}-{self.num_objectives}-objectives-{self.in_flight}-in-flight"

    def fresh(self, seed: int = 3) -> Proposer:
        trials = None if self.sampler == "grid" else TRIALS
        options = OPTIONS.get(self.sampler, {})
        return make_proposer(
            space(self.sampler), SearchConfig(self.sampler, trials, self.num_objectives, seed, options)
        )


def space(sampler: str) -> Space:
    if sampler == "grid":
        return STEPPED
    return Space(NUMERIC + ((Choice("f", ("linear", "sqrt")),) if SAMPLERS[sampler].categorical else ()))


CASES = [
    Case(name, objectives, in_flight)
    for name, sampler in SAMPLERS.items()
    for objectives in ((1, 2) if sampler.several_objectives else (1,))
    for in_flight in (1, 4)
]


def outcome(proposal: Proposal, num_objectives: int) -> Outcome:
    """A smooth function with its optimum inside; every fifth candidate fails."""
    if proposal.number % 5 == 2:
        return Outcome(proposal.number, None)
    numbers = [float(v) for v in proposal.point.values() if not isinstance(v, str)]
    values = [-sum((v - centre) ** 2 for v in numbers) for centre in (0.3, 0.8)]
    return Outcome(proposal.number, tuple(values[:num_objectives]))


@dataclass
class Record:
    proposals: list[Proposal]
    outcomes: list[Outcome]


def drive(proposer: Proposer, record: Record, case: Case) -> Iterator[Record]:
    """The driver's loop: ask n follows outcomes 0 to n - K, told in order; yields after every step."""
    while True:
        while len(record.outcomes) < len(record.proposals) - case.in_flight + 1:
            record.outcomes.append(outcome(record.proposals[len(record.outcomes)], case.num_objectives))
            proposer.tell(record.outcomes[-1])
            yield record
        proposal = proposer.ask()
        if proposal is None:
            return
        record.proposals.append(proposal)
        yield record


def points(case: Case, seed: int = 3) -> list[Point]:
    record = Record([], [])
    for _ in drive(case.fresh(seed), record, case):
        pass
    return [p.point for p in record.proposals]


def journaled(record: Record) -> Record:
    """The record as it is read back from a JSON journal."""
    proposals = json.loads(json.dumps([[p.number, p.point, p.state] for p in record.proposals]))
    outcomes = json.loads(json.dumps([[o.number, o.values] for o in record.outcomes]))
    return Record([Proposal(*p) for p in proposals], [Outcome(n, None if v is None else tuple(v)) for n, v in outcomes])


def crashes(case: Case) -> list[int]:
    """After how many steps to crash: each of them where sampling is quick, some where a model is fitted."""
    return [1, 9, 14, 25] if case.sampler == "gp" else list(range(2 * TRIALS - case.in_flight))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_replay_continues_as_if_nothing_had_happened(case: Case) -> None:
    expected = points(case)
    for steps in crashes(case):
        before = Record([], [])
        for _, _ in zip(range(steps), drive(case.fresh(), before, case), strict=False):
            pass
        after = journaled(before)
        proposer = case.fresh()
        proposer.replay(after.proposals, after.outcomes)
        for _ in drive(proposer, after, case):
            pass
        assert [p.point for p in after.proposals] == expected, f"crash after {steps} steps"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_points_lie_in_the_space_and_proposals_end_for_good(case: Case) -> None:
    proposer, record = case.fresh(), Record([], [])
    for _ in drive(proposer, record, case):
        pass
    for number, proposal in enumerate(record.proposals):
        assert proposal.number == number
        assert list(proposal.point) == [d.name for d in space(case.sampler).dims]
        space(case.sampler).check(proposal.point)
    assert len(record.proposals) == (len(STEPPED.grid()) if case.sampler == "grid" else TRIALS)
    assert proposer.ask() is None and proposer.ask() is None


@pytest.mark.parametrize("case", [c for c in CASES if c.sampler not in ("grid", "gp")], ids=str)
def test_another_seed_gives_other_points(case: Case) -> None:
    assert points(case, seed=4) != points(case, seed=3)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tell_refuses_a_number_that_is_not_in_flight(case: Case) -> None:
    proposer = case.fresh()
    with pytest.raises(ValueError, match="proposal 0 was never asked"):
        proposer.tell(Outcome(0, None))
    proposal = proposer.ask()
    assert proposal is not None
    proposer.tell(outcome(proposal, case.num_objectives))
    with pytest.raises(ValueError, match="proposal 0 was told before"):
        proposer.tell(outcome(proposal, case.num_objectives))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_replay_refuses_points_of_another_space(case: Case) -> None:
    with pytest.raises(ValueError, match="point|grid"):
        case.fresh().replay([Proposal(0, {"other": 1.0}, {"pending": []})], [])


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2", "nsga3"])
def test_later_points_are_better_so_objectives_are_maximised(sampler: str) -> None:
    config = SearchConfig(sampler, 36 if sampler != "gp" else 16, 1, 0, OPTIONS[sampler])
    proposer = make_proposer(Space((Float("x", 0.0, 1.0), Float("y", 0.0, 1.0))), config)
    values = []
    while (proposal := proposer.ask()) is not None:
        values.append(-math.dist((float(proposal.point["x"]), float(proposal.point["y"])), (0.7, 0.2)))
        proposer.tell(Outcome(proposal.number, (values[-1],)))
    third = len(values) // 3
    assert sum(values[-third:]) > sum(values[:third])


def test_another_process_proposes_the_same_points() -> None:
    # String hashes differ between processes, and samplers hold parameters in sets and dicts.
    chosen = [Case(name, 1, 4) for name in SAMPLERS]
    expected = [points(case) for case in chosen]
    script = (
        f"import json, sys; sys.path.insert(0, {str(__file__).rsplit('/', 1)[0]!r}); import test_proposers as t; "
        f"print(json.dumps([t.points(t.Case(n, 1, 4)) for n in t.SAMPLERS]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(run.stdout) == expected
