"""lm-eval without its notes, and with the states of random generators that it sets put back."""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import datasets
import numpy as np
import torch

_LOGGERS = ("lm_eval", "datasets")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the notes of lm-eval and of its data sets, and their progress bars; what matters is in errors."""
    loggers, hidden = [logging.getLogger(name) for name in _LOGGERS], datasets.are_progress_bars_disabled()
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not hidden:
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
