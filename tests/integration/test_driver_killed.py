"""Proves that a run killed in the middle of a random journal line, twenty times, ends with the same tables."""

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest
from toy import IDENTITY, TASKS, ToyEvaluator, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.records.append_log import AppendLog, Record, read_records
from pipeline.records.journal import FILE_NAME
from pipeline.run.run import run

TABLES = ("candidates.parquet", "scores.parquet", *(f"samples/{t}.parquet" for t in (*TASKS, "cats_ood")))
KILLS = 20


def work(folder: Path) -> None:
    run(make_plan(toy_spec()), IDENTITY, folder, lambda: LocalPool(ToyEvaluator()), None)


def work_until_killed(folder: Path, appends: int, seed: int) -> None:
    """Run; at the given append, write a random part of its bytes and kill this process."""
    append, journal = AppendLog.append, folder / FILE_NAME

    def torn(self: AppendLog, records: list[Record]) -> None:
        nonlocal appends
        appends -= 1
        if appends > 0:
            return append(self, records)
        size = journal.stat().st_size
        append(self, records)
        whole = journal.stat().st_size
        os.truncate(journal, random.Random(seed).randint(size, whole))
        os.kill(os.getpid(), signal.SIGKILL)

    AppendLog.append = torn  # type: ignore[assignment,method-assign]
    work(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    work(folder)
    return folder


def test_killed_at_random_lines_of_one_run(tmp_path: Path, undisturbed: Path) -> None:
    """The same run, killed and resumed twenty times."""
    total = sum(1 for _ in read_records(undisturbed / FILE_NAME))
    dice = random.Random(0)
    context = multiprocessing.get_context("fork")
    for kill in range(KILLS):
        child = context.Process(
            target=work_until_killed, args=(tmp_path / "run", dice.randint(1, 3 * total // (2 * KILLS)), kill)
        )
        child.start()
        child.join()
        assert child.exitcode in (-signal.SIGKILL, 0)
        if child.exitcode == 0:
            pytest.fail(f"the run ended after {kill} kills: raise the number of lines")
    work(tmp_path / "run")
    for name in TABLES:
        assert (tmp_path / "run" / name).read_bytes() == (undisturbed / name).read_bytes(), name


@pytest.mark.parametrize("seed", range(4))
def test_killed_once_anywhere(tmp_path: Path, undisturbed: Path, seed: int) -> None:
    total = sum(1 for _ in read_records(undisturbed / FILE_NAME))
    line = random.Random(seed).randint(1, total - 1)
    child = multiprocessing.get_context("fork").Process(target=work_until_killed, args=(tmp_path / "run", line, seed))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    work(tmp_path / "run")
    for name in TABLES:
        assert (tmp_path / "run" / name).read_bytes() == (undisturbed / name).read_bytes(), name
