"""Outcomes as bytes: 0 and 1 as bits, the first sample in the highest bit; others as little-endian float32."""

from typing import Any

import numpy as np
import numpy.typing as npt


def packed(outcomes_N: npt.NDArray[Any]) -> bytes:
    """Return the outcomes of N samples, bool or float, as bytes."""
    return (np.packbits(outcomes_N) if outcomes_N.dtype == np.bool_ else outcomes_N.astype("<f4")).tobytes()


def unpacked(data: bytes, bits: bool, n: int, start: int = 0) -> npt.NDArray[np.bool_] | npt.NDArray[np.float32]:
    """Return the outcomes of `packed`.

    Args:
        data: bytes that end with the outcomes.
        bits: whether they are bool.
        n: number of samples.
        start: offset of the outcomes.
    """
    if bits:
        return np.unpackbits(np.frombuffer(data, np.uint8, offset=start), count=n).astype(np.bool_)
    return np.frombuffer(data, "<f4", offset=start).astype(np.float32)
