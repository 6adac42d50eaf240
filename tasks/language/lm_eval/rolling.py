"""Tasks of lm-eval that measure texts as a whole (loglikelihood_rolling), scored in bits per byte.

lm-eval adds log-likelihoods and bytes of all documents before it divides. Bytes are the task's own count: wikitext
counts those before its text is cleaned.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.language.lm_eval.options import Options
from tasks.metrics import BITS_PER_BYTE

#: Metrics that order models as bits per byte do, with what makes them of its value.
_SAME_ORDER = {"byte_perplexity": "2 ** value", "word_perplexity": "2 ** (value * bytes / words)"}


def is_rolling(task: Any) -> bool:
    """Return whether a task of lm-eval measures texts as a whole."""
    return bool(task.OUTPUT_TYPE == "loglikelihood_rolling")


def rolling_metric(task: Any, options: Options) -> str:
    """Return the metric that is scored.

    Raises:
        ValueError: if the spec names another one, or the task lacks it.
    """
    chosen = options.metric or BITS_PER_BYTE
    if chosen != BITS_PER_BYTE:
        how = f": {chosen} is {_SAME_ORDER[chosen]}, and orders models alike" if chosen in _SAME_ORDER else ""
        raise ValueError(f"{options.where}.metric: must be {BITS_PER_BYTE}{how}, got {chosen!r}")
    if BITS_PER_BYTE not in task.aggregation():
        raise ValueError(f"its metrics are {', '.join(task.aggregation())}: add {BITS_PER_BYTE} to its metric_list")
    return chosen


def byte_counts(task: Any, documents: Sequence[Any]) -> tuple[int, ...]:
    """Return the bytes of each document, as the task counts them.

    Raises:
        ValueError: if there are none, or one of the task's functions fails.
    """
    try:
        counts = tuple(int(task.process_results(document, [0.0])[BITS_PER_BYTE][1]) for document in documents)
    except Exception as error:  # a task's own functions raise anything
        raise ValueError(f"cannot count the bytes of its documents: {type(error).__name__}: {error}") from error
    if documents and not sum(counts):
        raise ValueError("its documents are empty")
    return counts


def bits(values: Sequence[tuple[float, int]], mean_size: float) -> npt.NDArray[np.float32]:
    """Return the bits of documents over the mean document's bytes: see `tasks.base.Sized`.

    Args:
        values: of each document: log-likelihood in nats, bytes.
        mean_size: bytes.
    """
    return np.array([-nats / math.log(2) / mean_size for nats, _ in values], np.float64).astype(np.float32)
