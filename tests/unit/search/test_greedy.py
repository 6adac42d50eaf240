"""Proves that the greedy soup takes the models that the authors' loop takes, and can be resumed after a crash."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.greedy import GreedyProposer
from search.proposer import Outcome

NAMES = ("a", "b", "c", "d")
Score = Callable[[frozenset[int]], float | None]


def expected(count: int, score: Score) -> frozenset[int]:
    """The loop of the paper (recipe 1): the soup must get strictly better."""
    alone = {i: value for i in range(count) if (value := score(frozenset({i}))) is not None}
    ranked = sorted(alone, key=lambda i: (-alone[i], i))
    soup, best = frozenset(ranked[:1]), alone[ranked[0]]
    for model in ranked[1:]:
        value = score(soup | {model})
        if value is not None and value > best:
            soup, best = soup | {model}, value
    return soup


def models(point: object) -> frozenset[int]:
    assert isinstance(point, dict)
    return frozenset(i for i, name in enumerate(NAMES) if point[name])


def search(proposer: GreedyProposer, score: Score) -> list[tuple[frozenset[int], float | None]]:
    found = []
    while (proposal := proposer.ask()) is not None:
        soup = models(proposal.point)
        value = score(soup)
        found.append((soup, value))
        proposer.tell(Outcome(proposal.number, None if value is None else (value,)))
    assert proposer.ask() is None
    return found


def best(found: Sequence[tuple[frozenset[int], float | None]]) -> frozenset[int]:
    """Return the first of the highest, as runs choose."""
    scored = [(soup, value) for soup, value in found if value is not None]
    return max(scored, key=lambda pair: pair[1])[0]


#: One value for each soup, few distinct ones so that ties occur; None is a failure.
TABLES = st.lists(st.sampled_from([None, 0.1, 0.2, 0.3, 0.4]), min_size=16, max_size=16)


@given(TABLES)
def test_it_tries_what_the_authors_loop_tries(table: list[float | None]) -> None:
    def score(soup: frozenset[int]) -> float | None:
        return table[sum(1 << i for i in soup)]

    if all(score(frozenset({i})) is None for i in range(4)):
        assert len(search(GreedyProposer(NAMES), score)) == 4
        return
    assert best(search(GreedyProposer(NAMES), score)) == expected(4, score)


@given(TABLES, st.integers(0, 7))
def test_it_resumes_where_it_was_stopped(table: list[float | None], stop: int) -> None:
    def score(soup: frozenset[int]) -> float | None:
        return table[sum(1 << i for i in soup)]

    whole = search(GreedyProposer(NAMES), score)
    first = GreedyProposer(NAMES)
    proposals, outcomes = [], []
    for _ in range(min(stop, len(whole))):
        proposal = first.ask()
        assert proposal is not None
        proposals.append(proposal)
        value = score(models(proposal.point))
        outcomes.append(Outcome(proposal.number, None if value is None else (value,)))
        first.tell(outcomes[-1])
    again = GreedyProposer(NAMES)
    again.replay(proposals, outcomes)
    assert [(models(p.point)) for p in proposals] + [s for s, _ in search(again, score)] == [s for s, _ in whole]


def test_it_needs_all_earlier_outcomes() -> None:
    proposer = GreedyProposer(NAMES)
    proposer.ask()
    with pytest.raises(ValueError, match="needs the outcomes of all before it, got 0"):
        proposer.ask()
    with pytest.raises(ValueError, match="one value, got 2"):
        proposer.tell(Outcome(0, (1.0, 2.0)))
    with pytest.raises(ValueError, match="at least 2 models"):
        GreedyProposer(["a"])


def test_a_record_of_another_search_is_refused() -> None:
    first = GreedyProposer(NAMES)
    proposal = first.ask()
    assert proposal is not None
    with pytest.raises(ValueError, match="replay: proposal 0 was"):
        GreedyProposer(("x", "y")).replay([proposal], [])
