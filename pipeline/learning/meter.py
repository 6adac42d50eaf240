"""Measure the cost of a computation: seconds and additional memory."""

import resource
import time
from pathlib import Path
from types import TracebackType

import torch

_PROC = Path("/proc/self")


class Meter:
    """Measures the block of a `with` statement.

    Attributes:
        seconds: wall time.
        peak_bytes: peak memory above that at the start: of torch's allocator on a GPU, of the process on a CPU.
    """

    seconds = 0.0
    peak_bytes = 0

    def __init__(self, device: torch.device) -> None:
        """Measure work on `device`."""
        self._device = device

    def __enter__(self) -> "Meter":
        """Start."""
        self._held = self._reset()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else _resident("VmHWM")
        self.seconds = time.perf_counter() - self._started
        self.peak_bytes = max(0, peak - self._held)

    def _reset(self) -> int:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return torch.cuda.memory_allocated(self._device)
        try:
            (_PROC / "clear_refs").write_text("5")  # resets the peak to the current value: man 5 proc
        except OSError:  # refused in some containers: from the peak since the process began, the result is too low
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return _resident("VmRSS")


def _resident(field: str) -> int:
    """Return a field of /proc/self/status, which is in kB, in bytes."""
    line = next(x for x in (_PROC / "status").read_text().splitlines() if x.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
