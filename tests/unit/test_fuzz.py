"""Proves that damaged inputs end in clear errors, on a part of the cases of `make fuzz`; its sandbox finds faults."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.sandbox import Fault, Limits, run_cases

_ROOT = Path(__file__).parents[2]


def _fault() -> str:
    raise Fault("wrong", "another value")


def _error() -> str:
    raise KeyError("x")


def _spin() -> str:
    while True:
        pass


def _sleep() -> str:
    time.sleep(60)
    return "late"


def _crash() -> str:
    os.abort()


def _fill() -> str:
    return str(len(bytearray(200 << 20)))


def _reserve() -> str:
    return str(len(bytearray(2 << 30)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (_fault, "wrong"),
        (_error, "traceback"),
        (_spin, "time"),
        (_sleep, "time"),
        (_crash, "crash"),
        (_fill, "memory"),
        (_reserve, "memory"),
        (sys.exit, "traceback"),
    ],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_fault_is_one_finding_with_its_seed_and_the_other_cases_go_on(
    tmp_path: Path, fault: Callable[[], str], kind: str, batch: int
) -> None:
    def check(seed: int, folder: Path) -> str:
        assert not any(folder.iterdir())
        return fault() if seed == 2 else "fine"

    limits = Limits(cpu=1, wall=3, resident=100, reserved=1000)
    found = list(run_cases(check, range(5), tmp_path / "cases", limits, jobs=2, batch=batch))
    assert {r.seed: r.verdict or r.kind for r in found} == {0: "fine", 1: "fine", 2: kind, 3: "fine", 4: "fine"}
    assert not (tmp_path / "cases").exists()


@pytest.mark.slow
def test_a_part_of_the_cases_has_no_finding() -> None:
    """The other cases: `make fuzz`. A finding is run again by `--target NAME --seed N`."""
    path = os.pathsep.join(str(_ROOT / name) for name in ("", "tests", "tests/support"))
    command = [sys.executable, "-m", "fuzz.run", "--most", "25", "--jobs", "1"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, cwd=_ROOT)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
