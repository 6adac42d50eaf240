"""Outcomes as bytes: those of 0 and 1 as bits, the first sample in the highest bit; others as little-endian float32."""

from typing import Any

import numpy as np
import numpy.typing as npt


def packed(outcomes_N: npt.NDArray[Any]) -> bytes:
    """Outcomes of N samples, bool or float."""
    return (np.packbits(outcomes_N) if outcomes_N.dtype == np.bool_ else outcomes_N.astype("<f4")).tobytes()


def unpacked(data: bytes, bits: bool, n: int, start: int = 0) -> npt.NDArray[np.bool_] | npt.NDArray[np.float32]:
    """Inverse of `packed`.

    Args:
        data: with the outcomes at its end.
        bits: whether they are bool.
        n: how many, of bits.
        start: the first byte of the outcomes.
    """
    if bits:
        return np.unpackbits(np.frombuffer(data, np.uint8, offset=start), count=n).astype(np.bool_)
    return np.frombuffer(data, "<f4", offset=start).astype(np.float32)
