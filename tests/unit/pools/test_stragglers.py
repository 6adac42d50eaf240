"""Proves when a request is copied: long after its task's usual time, sooner while it only waits in line."""

from pipeline.pools.stragglers import AnswerTimes


def pace(**tasks: list[float]) -> AnswerTimes:
    found = AnswerTimes()
    for task, answers in tasks.items():
        for seconds in answers:
            found.add(task, seconds)
    return found


def due(known: AnswerTimes, task: str, waits: bool = False) -> float:
    """Return the seconds after which a request is copied."""
    return 1 / known.overdue(task, 1.0, waits)


def test_three_times_the_usual_time_of_its_own_task() -> None:
    known = pace(long=[10.0, 11.0, 12.0], short=[1.0] * 9)
    assert due(known, "long") == 33.0
    assert due(known, "short") == 3.0


def test_never_before_two_seconds_nor_for_one_answer_that_took_long() -> None:
    assert due(pace(cats=[0.01] * 5), "cats") == 2.0
    assert due(pace(cats=[1.0, 1.0, 1.0, 50.0]), "cats") == 3.0


def test_a_request_that_waits_in_line_is_copied_sooner() -> None:
    assert due(pace(cats=[10.0]), "cats", waits=True) == 15.0
    assert due(pace(cats=[0.01]), "cats", waits=True) == 1.0


def test_a_task_without_an_answer_counts_as_the_slowest_known() -> None:
    assert due(pace(long=[10.0], short=[1.0]), "new") == 30.0
    assert due(AnswerTimes(), "new") == 30.0, "and with no answer at all, half a minute"


def test_old_answers_are_forgotten() -> None:
    assert due(pace(cats=[100.0] * 40 + [1.0] * 31), "cats") == 3.0
