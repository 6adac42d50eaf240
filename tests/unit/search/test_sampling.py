"""Proves that an impossible search is refused with the remedy, and that a search leaves no traces."""

import logging
import warnings

import pytest

from search.proposer import FixedProposer, Outcome, Proposal
from search.samplers import SAMPLERS, OptionValue
from search.sampling import OptunaProposer, SearchConfig, make_proposer
from search.space import Choice, Float, Space

RANGE = Space((Float("beta", 0.0, 1.0),))
LIST = Space((Choice("beta", (0.0, 0.5, 1.0)),))


def refused(space: Space, message: str, config: SearchConfig) -> None:
    with pytest.raises(ValueError, match=message):
        make_proposer(space, config)


def test_an_unknown_sampler_gets_near_names() -> None:
    refused(RANGE, "unknown name 'nsga': did you mean 'nsga", SearchConfig("nsga", 10))


def test_cmaes_refuses_several_objectives_and_lists_and_names_samplers_that_can() -> None:
    able = "grid, random, qmc, tpe, gp, nsga2, nsga3"
    refused(RANGE, f"cmaes: one objective only, got 2: for several use {able}", SearchConfig("cmaes", 10, 2))
    refused(LIST, rf"cmaes: numeric ranges only, but \['beta'\] list their values.*{able}", SearchConfig("cmaes", 10))


def test_only_a_grid_needs_no_number_of_trials() -> None:
    assert isinstance(make_proposer(LIST, SearchConfig()), FixedProposer)
    refused(LIST, "a grid proposes every point once, got 5", SearchConfig("grid", 5))
    refused(RANGE, "trials: sampler tpe needs a number", SearchConfig("tpe"))
    refused(RANGE, "beta: a grid needs a step", SearchConfig("grid"))


def test_a_sampler_that_would_stay_random_is_refused() -> None:
    refused(RANGE, "startup_trials must be below trials = 10, got 10", SearchConfig("tpe", 10))
    refused(RANGE, "population_size must be below trials = 40, got 50", SearchConfig("nsga2", 40, 2))


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        ("tpe", {"startup_trails": 3}, "tpe: option: unknown name 'startup_trails': did you mean 'startup_trials'"),
        ("tpe", {"candidates": 0}, r"tpe: option candidates: must be a whole number in \[1, 10000\], got 0"),
        ("tpe", {"candidates": 2.5}, "must be a whole number in .*got 2.5"),
        ("tpe", {"candidates": None}, "must be a whole number in .*got None"),
        ("nsga2", {"crossover_prob": 1.5}, r"must be a number in \[0, 1\], got 1.5"),
        ("qmc", {"sequence": "sobool"}, "did you mean 'sobol'"),
    ],
)
def test_bad_options_are_refused(sampler: str, options: dict[str, OptionValue], message: str) -> None:
    refused(RANGE, message, SearchConfig(sampler, 100, 1, 0, options))


def test_empty_searches_are_refused() -> None:
    refused(Space(), "no dimensions", SearchConfig("random", 5))
    refused(RANGE, "objectives: there must be at least 1", SearchConfig("random", 5, 0))
    refused(RANGE, "seed: must be at least 0, got -1", SearchConfig("random", 5, 1, -1))
    with pytest.raises(ValueError, match="use `make_proposer`"):
        OptunaProposer(LIST, SearchConfig("grid"))
    with pytest.raises(ValueError, match="grid empty"):
        FixedProposer([])


@pytest.mark.parametrize("values", [(), (1.0, 2.0), (float("nan"),), (float("inf"),)])
def test_values_that_are_not_finite_or_not_one_for_each_objective_are_refused(values: tuple[float, ...]) -> None:
    proposer = make_proposer(RANGE, SearchConfig("random", 5))
    proposer.ask()
    with pytest.raises(ValueError, match="proposal 0 must have 1 finite values, or None if it failed"):
        proposer.tell(Outcome(0, values))


def recorded(sampler: str, count: int) -> tuple[list[Proposal], list[Outcome]]:
    proposer, proposals, outcomes = make_proposer(RANGE, SearchConfig(sampler, 20)), [], []
    for number in range(count):
        proposal = proposer.ask()
        assert proposal is not None
        proposals.append(proposal)
        outcomes.append(Outcome(number, (float(proposal.point["beta"]),)))
        proposer.tell(outcomes[-1])
    return proposals, outcomes


def test_an_incomplete_record_is_refused() -> None:
    proposals, outcomes = recorded("random", 4)

    def replay(proposals: list[Proposal], outcomes: list[Outcome], trials: int = 20) -> None:
        make_proposer(RANGE, SearchConfig("random", trials)).replay(proposals, outcomes)

    with pytest.raises(ValueError, match="proposal 2 came after outcome 1, which is missing"):
        replay(proposals, [outcomes[0], *outcomes[2:]])
    with pytest.raises(ValueError, match="expected proposal 1 of 20"):
        replay([proposals[0], *proposals[2:]], outcomes)
    with pytest.raises(ValueError, match="expected proposal 3 of 3"):
        replay(proposals, outcomes, trials=3)
    with pytest.raises(ValueError, match="expected proposal 0 of 20 with its state"):
        replay([Proposal(0, proposals[0].point)], [])
    with pytest.raises(ValueError, match="a proposal has two outcomes"):
        replay(proposals, [*outcomes, outcomes[0]])
    with pytest.raises(ValueError, match="needs a new proposer"):
        proposer = make_proposer(RANGE, SearchConfig("random", 20))
        proposer.ask()
        proposer.replay(proposals, outcomes)


def test_the_journal_wins_over_a_new_computation() -> None:
    # The sequence of a QMC search continues, although the recorded points are not from it.
    proposals, outcomes = recorded("qmc", 6)
    elsewhere = [Proposal(p.number, {"beta": 0.125}, p.state) for p in proposals[:5]]
    proposer = make_proposer(RANGE, SearchConfig("qmc", 20))
    proposer.replay(elsewhere, outcomes[:5])
    assert proposer.ask() == proposals[5]


def test_numbers_in_flight_are_recorded_as_runs_and_older_lists_are_read_too() -> None:
    config, space = SearchConfig("tpe", trials=40, options={"startup_trials": 4}), Space((Float("beta", 0, 1),))
    proposer = OptunaProposer(space, config)
    proposals = [p for _ in range(12) if (p := proposer.ask())]
    outcomes = [Outcome(n, (0.1 * n,)) for n in (5, 0, 1, 2, 7)]
    for outcome in outcomes:
        proposer.tell(outcome)
    proposals += [p for p in [proposer.ask()] if p]
    assert proposals[0].state == {"pending": []} and proposals[1].state == {"pending": [[0, 0]]}
    assert proposals[-1].state == {"pending": [[3, 4], [6, 6], [8, 11]]}
    following = proposer.ask()
    assert following is not None and following.state == {"pending": [[3, 4], [6, 6], [8, 12]]}
    named = Proposal(12, proposals[-1].point, {"pending": [3, 4, 6, 8, 9, 10, 11]})
    for record in (proposals, [*proposals[:-1], named]):
        again = OptunaProposer(space, config)
        again.replay(record, outcomes)
        assert again.ask() == following


def test_scrambled_sequences_fill_the_range_evenly() -> None:
    proposals, _ = recorded("qmc", 17)
    cells = sorted(int(float(p.point["beta"]) * 16) for p in proposals[1:])
    assert cells == list(range(16))


def test_logging_and_warnings_are_left_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("optuna")
    level, filters = logger.level, list(warnings.filters)
    for name, sampler in SAMPLERS.items():
        if sampler.build is not None and name != "gp":
            recorded_config = SearchConfig(name, 60)
            proposer = make_proposer(RANGE, recorded_config)
            proposer.ask()
            proposer.tell(Outcome(0, (1.0,)))
    assert (logger.level, list(warnings.filters)) == (level, filters)
    assert capfd.readouterr() == ("", "")
