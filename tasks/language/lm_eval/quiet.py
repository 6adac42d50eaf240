"""lm-eval without its notes, and with the states of random generators that it sets put back."""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import datasets
import numpy as np
import torch


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the notes of lm-eval and the progress bars of data sets."""
    logger, bars = logging.getLogger("lm_eval"), datasets.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def seeded(seeds: Sequence[int]) -> Iterator[None]:
    """Seed random, numpy and torch for the block, as lm-eval does before it loads a task: some shuffle answers."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seeds[0])
        np.random.seed(seeds[1])
        torch.manual_seed(seeds[2])
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
