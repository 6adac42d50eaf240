"""Proves the kind of failure of an evaluator's error: requests that ran out of memory are retried on resume."""

import pytest
import torch
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError

from pipeline.pools.failures import failure_kind
from tasks.base import NonFiniteError, NonFiniteOutput


class OutOfMemoryError(RuntimeError):
    """An error of another library, as CuPy has one."""


class DeviceFull(OutOfMemoryError):
    """A subclass with another name."""


def test_torch_without_memory_on_the_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**14)
    assert failure_kind(raised.value) == "out_of_memory"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RayOutOfMemoryError("the node is low on memory"), "out_of_memory"),
        (OutOfMemoryError("pool"), "out_of_memory"),
        (DeviceFull("pool"), "out_of_memory"),
        (NonFiniteError("weights"), "non_finite"),
        (NonFiniteOutput("logits"), "non_finite"),
        (RuntimeError("shapes"), "application"),
    ],
)
def test_kinds_go_by_the_names_of_the_types(error: BaseException, kind: str) -> None:
    assert failure_kind(error) == kind
