"""Proves that one run survives a killed worker, node and driver, a full disk and a stopped worker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chaos.faults import DriverKilled, NodeKilled
from chaos.hosts import permitted, wait_until
from chaos.run import check_equal
from chaos.small_run import KINDS, FullUntilReported, StoppedForGood, Survived

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

TESTS = Path(__file__).parents[1]
_OWNER = """
from chaos.hosts import network
with network() as net:
    host = net.host()
    host.run("sleep", "1000")
    while not (found := host.processes("sleep")): pass
    print(found[0].pid, net.folder, flush=True)
    found[0].wait()
"""


def test_after_every_fault_the_tables_are_those_of_an_undisturbed_run(survived: Survived) -> None:
    assert [type(s.fault) for s in survived.chaos.injected] == list(KINDS)
    check_equal(survived.run, survived.undisturbed)


def test_the_command_is_rerun_only_after_the_driver_was_killed(survived: Survived) -> None:
    assert survived.chaos.unexpected_ends == []
    assert survived.chaos.scene.driver.starts == 2
    assert survived.of(DriverKilled).next_answer is not None


def test_a_new_node_takes_the_place_of_a_killed_one(survived: Survived) -> None:
    assert survived.of(NodeKilled).host_works is not None


def test_a_full_disk_is_reported_with_its_node(survived: Survived) -> None:
    address = survived.of(FullUntilReported).fault.host.address
    (warning,) = [line for line in survived.output.splitlines() if "no space left" in line]
    assert address in warning and "gets no more workers for now" in warning


def test_the_shards_of_a_stopped_worker_are_copied(survived: Survived) -> None:
    stopped = survived.of(StoppedForGood)
    assert stopped.working == 1  # it was in the middle of one, and never continued
    assert stopped.next_answer is not None


def test_nothing_is_left_of_hosts_whose_owner_is_killed() -> None:
    if reason := permitted():
        pytest.skip(reason)
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True, cwd=TESTS)
    assert owner.stdout is not None
    pid, folder = owner.stdout.readline().split()
    assert psutil.pid_exists(int(pid))
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not psutil.pid_exists(int(pid)), 30, "the host's processes end")
    code = "from chaos.hosts import network\nwith network(): pass"
    again = subprocess.run([sys.executable, "-c", code], cwd=TESTS)
    assert again.returncode == 0 and not os.path.exists(folder)
