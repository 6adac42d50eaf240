"""Proves that a journal read in any pieces gives what reading it whole gives, and that damage and swaps are noticed."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import IDENTITY, ToyEvaluator

from pipeline.messages import Failure
from pipeline.recipe import Recipe
from pipeline.records.journal import FILE_NAME, Journal, read_history
from pipeline.records.ledger import Ledger
from pipeline.watch.follow.tail import Tail
from search.proposer import Proposal

RECIPE = Recipe.make("sum", "constant", 0.5)


def journal_of(folder: Path, points: int = 3) -> bytes:
    """A small journal with every kind of record; one shard fails and is scored later."""
    folder.mkdir(parents=True, exist_ok=True)
    journal, toy = Journal(folder), ToyEvaluator("worker-0")
    journal.header({"spec": {"name": "small"}, "identity": IDENTITY.to_json()})
    for number in range(points):
        journal.proposal(("LiNeS", "cats"), Proposal(number, {"alpha": number / 2}))
        requests = Ledger(IDENTITY, 50, {}).requests(Recipe.make("sum", "constant", number + 1), ["cats"], "val")
        journal.answers([Failure(requests[0], "lost", "gone", "worker-1")])
        journal.answers([toy.evaluate(request) for request in requests])
    journal.finish({"counts": {}})
    journal.close()
    return (folder / FILE_NAME).read_bytes()


def contents(tail: Tail) -> tuple[object, ...]:
    seen = tail.state
    work = {name: (w.shards, w.failures) for name, w in seen.work.items()}
    return history_of(seen.history), work, [a.request.key for a in seen.latest], list(seen.failures)


def history_of(history: object) -> tuple[object, ...]:
    answers = {k: repr(a) for k, a in history.answers.items()}  # type: ignore[attr-defined]
    return history.header, history.proposals, answers, history.finished, history.provenance  # type: ignore[attr-defined]


def drained(folder: Path) -> Tail:
    tail = Tail()
    while tail.advance(folder):
        pass
    return tail


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cut_of_the_appended_bytes_gives_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = journal_of(tmp_path_factory.mktemp("whole"))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    folder, tail = tmp_path_factory.mktemp("pieces"), Tail()
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        with (folder / FILE_NAME).open("ab") as file:
            file.write(whole[start:stop])
        tail.advance(folder)
        assert tail.offset == whole[:stop].rfind(b"\n") + 1, "whole lines, and all of them"
    assert contents(tail) == contents(drained(folder))
    assert history_of(tail.state.history) == history_of(read_history(folder))
    assert not tail.state.failures and tail.state.work["worker-1"].failures == 3


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    whole = journal_of(tmp_path)
    tail = drained(tmp_path)
    assert tail.offset == len(whole) and not tail.advance(tmp_path)


def test_a_folder_without_a_journal_is_waited_for(tmp_path: Path) -> None:
    tail = Tail()
    assert not tail.advance(tmp_path / "not there")
    journal_of(tmp_path / "not there")
    assert tail.advance(tmp_path / "not there") and tail.state.history.finished


@pytest.mark.parametrize("points", [1, 5])
def test_another_journal_in_its_place_is_read_from_its_beginning(tmp_path: Path, points: int) -> None:
    journal_of(tmp_path)
    tail = drained(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    journal_of(tmp_path, points)
    assert tail.advance(tmp_path)
    assert contents(tail) == contents(drained(tmp_path))


@pytest.mark.parametrize("line", [b"{nonsense\n", b"[1]\n", b'{"no": "record"}\n'])
def test_a_damaged_line_is_an_error(tmp_path: Path, line: bytes) -> None:
    journal_of(tmp_path)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(line)
    with pytest.raises(ValueError, match=r"journal\.jsonl: line \d+ is damaged"):
        drained(tmp_path)


def test_records_before_a_damaged_line_are_counted_once(tmp_path: Path) -> None:
    whole = journal_of(tmp_path)
    lines = whole.splitlines(keepends=True)
    (tmp_path / FILE_NAME).write_bytes(b"".join([*lines[:-1], b"{nonsense\n", lines[-1]]))
    tail = Tail()
    for _ in range(3):
        with pytest.raises(ValueError, match=r"journal\.jsonl: line \d+ is damaged"):
            tail.advance(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(whole)
    tail.advance(tmp_path)
    assert contents(tail) == contents(drained(tmp_path))


def test_a_run_that_is_resumed_after_its_end_is_not_finished(tmp_path: Path) -> None:
    journal_of(tmp_path)
    journal = Journal(tmp_path)
    journal.answers([ToyEvaluator("worker-0").evaluate(Ledger(IDENTITY, 50, {}).requests(RECIPE, ["cats"], "val")[0])])
    history = read_history(tmp_path)
    assert not history.finished and history.provenance == {"counts": {}, "complete": False}
    journal.finish({"counts": {}, "complete": True})
    journal.close()
    history = read_history(tmp_path)
    assert history.finished and history.provenance["complete"]


def test_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({"record": "run", "version": 99}) + "\n")
    with pytest.raises(ValueError, match="version 99"):
        Tail().advance(tmp_path)
