"""The memory of a machine, and how many workers run on it at once."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.cluster.capacity import ActorShape, Node, count_fitting
from pipeline.spec.resources import Resources
from tasks.cores import permitted_cores, permitted_memory

#: The part of a GPU's memory that no plan uses: CUDA's context, its kernels, and gaps between tensors. An assumption.
_RESERVED = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that runs workers.

    Attributes:
        host: bytes of memory; None if not known.
        device: bytes of memory of one GPU; None without a GPU.
        gpus: number of GPUs.
        cores: number of CPU cores.
    """

    host: int | None
    device: int | None = None
    gpus: int = 0
    cores: int = 1

    @classmethod
    def here(cls, host: int | None = None, device: int | None = None) -> "Machine":
        """Return this machine, with the given sizes in place of its own."""
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device is None and gpus:
            device = min(torch.cuda.get_device_properties(i).total_memory for i in range(gpus))
        return cls(
            _memory() if host is None else host, device, gpus or int(device is not None), permitted_cores().permitted
        )

    def device_type(self, resources: Resources) -> str:
        """Return where workers evaluate: "cuda" or "cpu"."""
        asked = resources.per_worker.num_gpus
        return "cuda" if (self.gpus if asked == "auto" or resources.pool == "local" else asked) else "cpu"

    def share(self, resources: Resources) -> int | None:
        """Return the bytes of a GPU's memory that a worker may use; None if not known."""
        asked = resources.per_worker.num_gpus
        part = 1 if asked == "auto" or resources.pool == "local" else min(asked, 1)
        return None if self.device is None else int(self.device * part * (1 - _RESERVED))

    def workers(self, resources: Resources) -> int:
        """Return how many of a run's workers this machine runs at once: at least 1."""
        if resources.pool == "local":
            return 1
        asked = resources.per_worker.num_gpus
        gpus = min(self.gpus, 1) if asked == "auto" else asked
        fitting = count_fitting(
            [Node("", "", self.cores, self.gpus)], ActorShape(1, resources.per_worker.num_cpus, gpus)
        )
        return max(1, fitting if resources.workers == "auto" else min(fitting, resources.workers))


def _memory() -> int | None:
    """Return the bytes of memory that this process may use."""
    limits = [limit for limit in (permitted_memory(), _installed()) if limit is not None]
    return min(limits, default=None)


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def program_bytes() -> int:
    """Return the bytes of memory that this process takes: Python and libraries, once they are imported."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
