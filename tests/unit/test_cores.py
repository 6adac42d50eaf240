"""Proves how many cores and how much memory a process may use under taskset, cgroup quotas and Slurm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.cores import Cores, permitted_cores, permitted_memory

GIB = 2**30
CORE = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores without limits."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


V2 = {"proc/self/cgroup": "0::/user.slice/job_7"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/"}
QUOTAS: list[tuple[str, dict[str, str], float | None]] = [
    ("no cgroups", {}, None),
    ("version 2, no limit", V2 | {"sys/fs/cgroup/user.slice/job_7/cpu.max": "max 100000"}, None),
    ("version 2", V2 | {"sys/fs/cgroup/user.slice/job_7/cpu.max": "400000 100000"}, 4),
    ("version 2, half a core", V2 | {"sys/fs/cgroup/user.slice/job_7/cpu.max": "50000 100000"}, 0.5),
    ("version 2, two and a half", V2 | {"sys/fs/cgroup/user.slice/job_7/cpu.max": "250000 100000"}, 2.5),
    (
        "version 2, the parent has less",
        V2
        | {"sys/fs/cgroup/user.slice/cpu.max": "300000 100000"}
        | {"sys/fs/cgroup/user.slice/job_7/cpu.max": "600000 100000"},
        3,
    ),
    ("version 2, container", {"proc/self/cgroup": "0::/"} | {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    (
        "version 2, outside the container's namespace",
        {"proc/self/cgroup": "0::/../../abc", "sys/fs/cgroup/cpu.max": "500000 100000"},
        5,
    ),
    (
        "version 1, no limit",
        V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
        None,
    ),
    (
        "version 1, mounted at the top",
        V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "700000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
        7,
    ),
    (
        "version 1, the host's path",
        V1
        | {"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "150000"}
        | {"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "50000"},
        3,
    ),
    ("damaged", V2 | {"sys/fs/cgroup/cpu.max": "many", "sys/fs/cgroup/user.slice/cpu.max": "0 0"}, None),
]


@pytest.mark.parametrize(("files", "quota"), [pair[1:] for pair in QUOTAS], ids=[pair[0] for pair in QUOTAS])
def test_a_quota_of_a_cgroup_limits_the_cores(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    expected = Cores(16, 16) if quota is None else Cores(max(1, int(quota)), 16, f"cgroup quota of {quota:g} CPUs")
    assert permitted_cores(write(tmp_path, files)) == expected


def test_the_smallest_limit_counts_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, V2 | {"sys/fs/cgroup/cpu.max": "600000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 5, 6})
    assert permitted_cores(root) == Cores(4, 16, "affinity")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    assert permitted_cores(root) == Cores(4, 16, "affinity")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "2")
    assert permitted_cores(root) == Cores(2, 16, "SLURM_CPUS_ON_NODE=2")
    assert str(permitted_cores(root)) == "2 of 16 cores (SLURM_CPUS_ON_NODE=2)"
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "some")
    assert permitted_cores(root) == Cores(4, 16, "affinity")


def test_without_affinity_as_on_macos_all_cores_are_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert permitted_cores(tmp_path) == Cores(16, 16)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        (V2 | {"sys/fs/cgroup/user.slice/job_7/memory.max": "max"}, None),
        (V2 | {"sys/fs/cgroup/user.slice/job_7/memory.max": str(8 * GIB)}, 8 * GIB),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GIB)}, 4 * GIB),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_a_cgroup_limits_the_memory(files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    assert permitted_memory(write(tmp_path, files)) == limit


@pytest.mark.skipif(not shutil.which("taskset"), reason="taskset is a command of Linux")
def test_taskset_leaves_one_core() -> None:
    code = "from tasks.cores import permitted_cores; print(permitted_cores().permitted)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["taskset", "-c", str(CORE), sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
