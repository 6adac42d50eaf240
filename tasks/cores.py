"""The CPU cores and the memory that this process may use: often fewer than the machine has.

`taskset`, Slurm and containers limit a process in three ways, and the smallest counts:

- affinity: the cores on which the system's scheduler runs the process;
- a quota: a cgroup may use so many seconds of CPU in a second; with more threads than that, all of them are paused;
- an allocation: Slurm without a plug-in that enforces it only sets SLURM_CPUS_ON_NODE.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GROUPS, _MOUNT = Path("proc/self/cgroup"), Path("sys/fs/cgroup")
#: CPUs that Slurm has given to this job step on this node. SLURM_CPUS_PER_TASK is not used: in a batch script all tasks
#: of the job belong to the one process.
_SLURM = "SLURM_CPUS_ON_NODE"
#: The limit that `taskset` sets, and Slurm with task/affinity or task/cgroup.
AFFINITY = "affinity"


@dataclass(frozen=True, slots=True)
class Cores:
    """How many cores this process may use.

    Attributes:
        permitted: cores that it may use, at least 1.
        existing: cores of the machine.
        limit: what limits them; empty if nothing does.
    """

    permitted: int
    existing: int
    limit: str = ""

    def __str__(self) -> str:
        """Describe the cores."""
        return f"{self.permitted} of {self.existing} cores" + (f" ({self.limit})" if self.limit else "")


def permitted_cores(root: Path = Path("/")) -> Cores:
    """Return how many cores this process may use, and what limits them; a quota of 2.5 is 2 cores.

    Args:
        root: the folder of proc/ and sys/, for tests.

    Example:
        $ taskset -c 0 python -c "from tasks.cores import permitted_cores; print(permitted_cores())"
        1 of 8 cores (affinity)
    """
    existing = os.cpu_count() or 1
    limits = [(float(existing), ""), (float(_affinity(existing)), AFFINITY)]
    limits += [(quota, f"cgroup quota of {quota:g} CPUs") for quota in _quotas(root)]
    if (slurm := os.environ.get(_SLURM, "")).isdecimal():
        limits.append((float(slurm), f"{_SLURM}={slurm}"))
    permitted, limit = min(limits, key=lambda pair: pair[0])  # the first of equals: affinity before Slurm's variable
    return Cores(max(1, int(permitted)), existing, limit)


def permitted_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory to which a cgroup limits this process; None without a limit."""
    limits = []
    for folder, unified in _folders("memory", root):
        text = _read(folder / ("memory.max" if unified else "memory.limit_in_bytes"))
        if text.isdecimal() and int(text) < 2**60:  # version 1 writes "no limit" as almost 2**63
            limits.append(int(text))
    return min(limits, default=None)


def _affinity(existing: int) -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else existing


def _quotas(root: Path) -> Iterator[float]:
    for folder, unified in _folders("cpu", root):
        if unified:
            quota, _, period = _read(folder / "cpu.max").partition(" ")
        else:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # else "max", -1 or no file
            yield int(quota) / int(period)


def _folders(controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of this process's cgroups and of their parents, and whether they are of version 2.

    The limits of parents count too. In a container the path may be that of the host, while the container's own group is
    mounted at the top: folders that do not exist give nothing.
    """
    for line in _read(root / _GROUPS).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [root / _MOUNT / name for name in dict.fromkeys((controllers, controller))] if controllers else []
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts or [root / _MOUNT]:
            for depth in range(len(parts) + 1):
                yield mount.joinpath(*parts[:depth]), not controllers


def _read(path: Path) -> str:
    """Return a file's text, empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
