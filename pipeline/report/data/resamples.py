"""One draw of resampled images for every arm, expert and point, so that whatever is compared is compared in pairs."""

import zlib
from functools import lru_cache

import numpy as np

from search.pareto import Array

RESAMPLES = 200


@lru_cache(maxsize=64)
def bootstrap_weights(task: str, samples: int) -> Array:
    """Bootstrap weights of shape (samples, RESAMPLES), each column summing to 1; the same at every call."""
    generator = np.random.default_rng(zlib.crc32(task.encode()))
    counts_RN = generator.multinomial(samples, np.full(samples, 1 / samples), size=RESAMPLES)
    weights: Array = counts_RN.T / samples
    weights.flags.writeable = False
    return weights
