"""Classify the errors of evaluators."""

import torch

from pipeline.messages import FailureKind
from tasks.base import NonFiniteError


def failure_kind(error: BaseException) -> FailureKind:
    """Return the kind of failure that an evaluator's error is."""
    if _is_out_of_memory(error):
        return "out_of_memory"
    return "non_finite" if isinstance(error, NonFiniteError) else "application"


def is_broken(error: BaseException) -> bool:
    """Whether the process must be replaced: after an error of the device, CUDA raises it again at every call."""
    if _is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or "CUDA error: " in str(error)


def _is_out_of_memory(error: BaseException) -> bool:
    # On the CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: " in str(error)
