"""Proves that the streamed k-th largest magnitude is `torch.kthvalue`'s, bit for bit, in scratch of fixed size."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.merging import parameter_pieces
from pipeline.merging.kth_largest import kth_largest_magnitude, kth_largest_magnitudes

#: Few distinct values make ties; the small ones are denormals, of which float32 ends at 1.4e-45.
VALUES = st.sampled_from([0.0, -0.0, 1.4e-45, -1.4e-45, 1e-40, 1e-38, -0.5, 0.5, 1.0, -1.0]) | st.floats(
    width=32
).filter(lambda x: abs(x) < float("inf"))
TENSORS = st.lists(st.lists(VALUES, max_size=12), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(TENSORS, st.data(), st.sampled_from([5, 1 << 18]))
def test_equals_kthvalue_of_the_flattened_vector(values: list[list[float]], data: st.DataObject, piece: int) -> None:
    tensors = {str(i): torch.tensor(v, dtype=torch.float32) for i, v in enumerate(values)}
    flat = torch.cat(list(tensors.values())).abs()
    if not flat.numel():
        return
    k = data.draw(st.integers(1, flat.numel()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameter_pieces, "PIECE", piece)
        found = kth_largest_magnitude(tensors, k)
    expected = flat.kthvalue(flat.numel() - k + 1).values
    assert torch.tensor(found).view(torch.int32) == expected.view(torch.int32)


def test_shapes_strides_and_sizes_do_not_matter() -> None:
    wide = torch.randn(700, 900).t()
    tensors = {"a": wide, "b": torch.randn(()), "c": torch.zeros(0, 3)}
    flat = torch.cat([t.flatten() for t in tensors.values()]).abs()
    for k in (1, 2, flat.numel() // 5, flat.numel()):
        assert kth_largest_magnitude(tensors, k) == flat.kthvalue(flat.numel() - k + 1).values.item()


@pytest.mark.parametrize("k", [0, -1, 4])
def test_a_place_outside_the_vector_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k: must be from 1 to the 3 entries, got {k}"):
        kth_largest_magnitude({"a": torch.ones(2), "b": torch.ones(())}, k)


def test_several_are_found_at_once() -> None:
    tensors = {"a": torch.randn(500), "b": torch.randn(3, 70) * 1e-3}
    ks = (700, 1, 70, 71, 1)
    assert kth_largest_magnitudes(tensors, ks) == [kth_largest_magnitude(tensors, k) for k in ks]


def test_no_input_is_written_to() -> None:
    tensor = torch.tensor([-1.0, 2.0])
    kth_largest_magnitude({"a": tensor}, 1)
    assert tensor.tolist() == [-1.0, 2.0]


@pytest.mark.slow
def test_takes_a_few_megabytes_beside_the_vector() -> None:
    """Measured in a process of its own, as the growth of its peak; the vector is 80 MB."""
    code = """
import resource, torch
from pipeline.merging.kth_largest import kth_largest_magnitude
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
tensors = {str(i): torch.randn(10_000_000) for i in range(2)}
kth_largest_magnitude({"warm": torch.randn(1000)}, 5)
before = peak()
kth_largest_magnitude(tensors, 500_000)
print(peak() - before)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) <= 12
