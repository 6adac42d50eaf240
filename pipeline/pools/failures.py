"""Classify the errors of evaluators."""

import sys

from pipeline.messages import FailureKind
from tasks.errors import NonFiniteError

_OUT_OF_MEMORY = {"OutOfMemoryError", "MemoryError"}


def failure_kind(error: BaseException) -> FailureKind:
    """Return the kind of failure that an evaluator's error is."""
    if _is_out_of_memory(error):
        return "out_of_memory"
    return "non_finite" if isinstance(error, NonFiniteError) else "application"


def is_broken(error: BaseException) -> bool:
    """Whether the process must be replaced: after an error of the device, CUDA raises it again at every call."""
    if _is_out_of_memory(error):
        return False
    torch = sys.modules.get("torch")  # a process that has not imported it has no errors of its classes
    return (torch is not None and isinstance(error, torch.AcceleratorError)) or "CUDA error: " in str(error)


def _is_out_of_memory(error: BaseException) -> bool:
    # By name: torch, Ray, CuPy and vLLM have classes of their own, and a reward may use any of them.
    names = {kind.__name__ for kind in type(error).__mro__}
    # On the CPU torch raises a plain RuntimeError.
    return bool(names & _OUT_OF_MEMORY) or "DefaultCPUAllocator: " in str(error)
