"""Proves that a journal is read as it was written: proposals, scores to the bit, failures, the last answer."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import LockedError
from pipeline.messages import EvalRequest, Failure, ShardScore
from pipeline.recipe import Recipe
from pipeline.records.journal import (
    FILE_NAME,
    JOURNAL_VERSION,
    History,
    Journal,
    answer_record,
    parse_answer,
    read_history,
)
from search.proposer import Proposal
from tasks.stats import Stats

RECIPE = Recipe.make("sum", "power", "auto", 0.5, (1, 0), {"p": 2.5, "knots": (0, 1)})
REQUEST = EvalRequest(RECIPE, RECIPE.id("f"), "cats", "val", 3, 120, 128)


def assert_same(a: ShardScore | Failure, b: ShardScore | Failure) -> None:
    if isinstance(a, ShardScore) and isinstance(b, ShardScore):
        assert a.outcomes.dtype == b.outcomes.dtype
        np.testing.assert_array_equal(a.outcomes, b.outcomes)
        parts = [(s.request, s.stats, s.alpha, s.seconds, s.worker) for s in (a, b)]
        assert parts[0] == parts[1]
    else:
        assert a == b


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.floats(-2, 2))
def test_bits_and_numbers_come_back_as_they_were(right: list[bool], alpha: float) -> None:
    total = float(sum(right))
    score = ShardScore(REQUEST, Stats(len(right), total, total), np.array(right), alpha, (0.25, 1.5), "worker-0")
    record = answer_record(score)
    assert_same(parse_answer(record.pop("record"), record), score)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_rewards_come_back_as_they_were(rewards: list[float]) -> None:
    score = ShardScore(REQUEST, Stats(len(rewards), 1.0, 2.0), np.array(rewards, np.float32), 1.0)
    record = answer_record(score)
    assert_same(parse_answer(record.pop("record"), record), score)


def test_everything_that_is_written_is_read_back(tmp_path: Path) -> None:
    failure = Failure(REQUEST, "lost", "worker was lost", "worker-1")
    score = ShardScore(REQUEST, Stats(2, 1.0, 1.0), np.array([True, False]), 0.25, (0.0, 0.5), "worker-2")
    proposals = [Proposal(0, {"alpha": 0.1 + 0.2, "n": 3}, {"seed": [1, None]}), Proposal(1, {"alpha": 1.0, "n": 1})]
    journal = Journal(tmp_path)
    journal.header({"spec": {"name": "x"}})
    for proposal in proposals:
        journal.proposal(("LiNeS", "cats"), proposal)
    journal.answers([failure])
    assert_same(read_history(tmp_path).answers[REQUEST.key], failure)
    journal.answers([score])
    history = read_history(tmp_path)
    assert history.header == {"version": JOURNAL_VERSION, "spec": {"name": "x"}} and not history.finished
    assert history.proposals == {("LiNeS", "cats"): proposals}
    assert_same(history.answers[REQUEST.key], score)
    journal.finish({"seconds": {"total": 1.5}})
    journal.close()
    assert read_history(tmp_path).finished and read_history(tmp_path).provenance == {"seconds": {"total": 1.5}}


def test_a_folder_without_a_journal_has_no_history(tmp_path: Path) -> None:
    history = read_history(tmp_path)
    assert history.header is None and not history.answers and not history.proposals


def test_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"record":"run","version":999}\n')
    with pytest.raises(ValueError, match=r"journal\.jsonl: version 999, expected 1"):
        read_history(tmp_path)


def test_a_second_run_in_the_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(LockedError, match="another run is writing in this folder: .* give another --out"):
        Journal(tmp_path)
    journal.close()


def old_journal() -> list[dict[str, object]]:
    """The records of a journal as older versions wrote it, without checksums."""
    score = ShardScore(REQUEST, Stats(2, 1.0, 1.0), np.array([True, False]), 0.25)
    proposals = [{"record": "proposal", "group": ["a", "b"], "number": n, "point": {}, "state": {}} for n in range(3)]
    return [{"record": "run", "version": JOURNAL_VERSION, "spec": {}}, *proposals, answer_record(score)]


def read(folder: Path, records: list[dict[str, object]]) -> History:
    (folder / FILE_NAME).write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_history(folder)


def test_a_journal_of_an_older_version_is_read_and_continued(tmp_path: Path) -> None:
    assert len(read(tmp_path, old_journal()).answers) == 1
    journal = Journal(tmp_path)
    journal.proposal(("a", "b"), Proposal(3, {"alpha": 1.0}))
    journal.close()
    history = read_history(tmp_path)
    assert len(history.proposals["a", "b"]) == 4 and len(history.answers) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"record": "scorf"},
        {"stats": [2, 1.0]},
        {"stats": None},
        {"outcomes": ["bits", "?"]},
        {"outcomes": ["f4", "AAA="]},
        {"request": []},
        {"request": 5},
        {"seconds": 1},
    ],
)
def test_a_record_without_checksum_that_cannot_be_read_names_its_line(
    tmp_path: Path, change: dict[str, object]
) -> None:
    *before, score = old_journal()
    with pytest.raises(ValueError, match=r"journal\.jsonl: line 5 is damaged"):
        read(tmp_path, [*before, score | change])


def test_a_missing_proposal_is_an_error(tmp_path: Path) -> None:
    """The next ones would otherwise move to its place, with the values of other candidates."""
    records = old_journal()
    with pytest.raises(
        ValueError, match=r"line 3 is damaged \(.*proposal 2 follows 1 others: a line before it is miss"
    ):
        read(tmp_path, records[:2] + records[3:])
