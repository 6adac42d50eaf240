"""Proves that every proposer repeats itself exactly, in any process and after a crash at any point."""

import functools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.proposer import Outcome, Proposal, Proposer
from search.samplers import SAMPLERS
from search.sampling import SearchConfig, make_proposer
from search.space import Choice, Float, Point, Space

#: Small warm-ups and populations, so that few trials pass the random phase of each sampler.
OPTIONS = {
    "tpe": {"startup_trials": 4},
    "gp": {"startup_trials": 3},
    "cmaes": {"population_size": 4},
    "nsga2": {"population_size": 4},
    "nsga3": {"population_size": 4},
}
#: A GP over two objectives takes a second or more an ask on a busy machine.
TRIALS = {name: 8 if name == "gp" else 16 for name in SAMPLERS}
NUMERIC = (Float("beta", 0.0, 1.0), Float("gamma", 0.1, 10.0, log=True), Float("alpha", 0.0, 1.0, step=0.1))
STEPPED = Space((Float("alpha", 0.0, 1.0, step=0.25), Choice("k", (1, 3, 5)), Choice("f", ("linear", "sqrt"))))


@dataclass(frozen=True)
class Case:
    sampler: str
    num_objectives: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.sampler}-{self.num_objectives}-objectives-{self.in_flight}-in-flight"

    def fresh(self, seed: int = 3) -> Proposer:
        trials = None if self.sampler == "grid" else TRIALS[self.sampler]
        options = OPTIONS.get(self.sampler, {})
        return make_proposer(
            space(self.sampler), SearchConfig(self.sampler, trials, self.num_objectives, seed, options)
        )


def space(sampler: str) -> Space:
    if sampler == "grid":
        return STEPPED
    numeric = NUMERIC[:1] if sampler == "gp" else NUMERIC
    return Space(numeric + ((Choice("f", ("linear", "sqrt")),) if SAMPLERS[sampler].categorical else ()))


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
    """Run the driver's loop: ask n follows outcomes 0 to n - K, told in order; yield after every step."""
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


@functools.cache
def undisturbed(case: Case, seed: int = 3) -> list[Record]:
    """Return the record after every step of an undisturbed run."""
    record = Record([], [])
    return [Record(list(r.proposals), list(r.outcomes)) for r in drive(case.fresh(seed), record, case)]


def points(record: Record) -> list[Point]:
    return [p.point for p in record.proposals]


def journaled(record: Record) -> Record:
    """Return the record as read back from a JSON journal."""
    proposals = json.loads(json.dumps([[p.number, p.point, p.state] for p in record.proposals]))
    outcomes = json.loads(json.dumps([[o.number, o.values] for o in record.outcomes]))
    return Record([Proposal(*p) for p in proposals], [Outcome(n, None if v is None else tuple(v)) for n, v in outcomes])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_replay_continues_the_search(case: Case) -> None:
    *crashes, end = undisturbed(case)
    for crash in crashes[-5:-4] if case.sampler == "gp" else crashes:
        record, proposer = journaled(crash), case.fresh()
        proposer.replay(record.proposals, record.outcomes)
        for _ in drive(proposer, record, case):
            pass
        assert points(record) == points(end), f"crash after {len(crash.proposals)} asks, {len(crash.outcomes)} tells"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_points_lie_in_the_space(case: Case) -> None:
    end = undisturbed(case)[-1]
    assert [p.number for p in end.proposals] == list(range(len(end.proposals)))
    assert len(end.proposals) == (len(STEPPED.grid()) if case.sampler == "grid" else TRIALS[case.sampler])
    for point in points(end):
        assert list(point) == [d.name for d in space(case.sampler).dims]
        space(case.sampler).check(point)


@pytest.mark.parametrize("case", [c for c in CASES if c.num_objectives == 1], ids=str)
def test_an_ended_search_stays_ended_also_after_a_replay(case: Case) -> None:
    end, proposer = undisturbed(case)[-1], case.fresh()
    proposer.replay(end.proposals, end.outcomes)
    assert proposer.ask() is None and proposer.ask() is None


@pytest.mark.parametrize("case", [c for c in CASES if c.sampler not in ("grid", "gp")], ids=str)
def test_another_seed_gives_other_points(case: Case) -> None:
    assert points(undisturbed(case, seed=4)[-1]) != points(undisturbed(case, seed=3)[-1])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tell_refuses_a_number_that_is_not_in_flight(case: Case) -> None:
    proposer = case.fresh()
    with pytest.raises(ValueError, match="proposal 0 was never asked"):
        proposer.tell(Outcome(0, None))
    proposal = proposer.ask()
    assert proposal is not None
    proposer.tell(outcome(proposal, case.num_objectives))
    with pytest.raises(ValueError, match="proposal 0 was already told"):
        proposer.tell(outcome(proposal, case.num_objectives))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_replay_refuses_points_of_another_space(case: Case) -> None:
    with pytest.raises(ValueError, match="point|grid"):
        case.fresh().replay([Proposal(0, {"other": 1.0}, {"pending": []})], [])


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2", "nsga3"])
def test_later_points_are_better_so_objectives_are_maximised(sampler: str) -> None:
    config = SearchConfig(sampler, 36 if sampler != "gp" else 10, 1, 0, OPTIONS[sampler])
    proposer = make_proposer(Space((Float("x", 0.0, 1.0), Float("y", 0.0, 1.0))), config)
    values = []
    while (proposal := proposer.ask()) is not None:
        values.append(-math.dist((float(proposal.point["x"]), float(proposal.point["y"])), (0.7, 0.2)))
        proposer.tell(Outcome(proposal.number, (values[-1],)))
    third = len(values) // 3
    assert statistics.median(values[-third:]) > statistics.median(values[:third])


@pytest.mark.slow
def test_another_process_proposes_the_same_points() -> None:
    # String hashes differ between processes, and samplers hold parameters in sets and dicts.
    script = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_proposers as t; "
        "print(json.dumps([t.points(t.undisturbed(t.Case(n, 1, 4))[-1]) for n in t.SAMPLERS]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [points(undisturbed(Case(name, 1, 4))[-1]) for name in SAMPLERS]
