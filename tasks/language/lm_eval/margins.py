"""By how much a document of a multiple-choice task is wrong."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: Metric -> what a choice's log-likelihood is divided by.
_LENGTHS: dict[str, Callable[[str], int]] = {
    "acc": lambda choice: 1,
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}


def margins_of(task: Any, metric: str, requests: Sequence[Sequence[Any]]) -> npt.NDArray[np.float32] | None:
    """Return the best wrong choice's log-likelihood minus the right one's, divided by lengths as the metric does.

    Args:
        task: of lm-eval.
        metric: of the task.
        requests: of each document, answered; the first are those of its choices.

    Returns:
        float32 (B,), below 0 for a right answer; None for tasks and metrics without one right choice.
    """
    if task.OUTPUT_TYPE != "multiple_choice" or metric not in _LENGTHS or task.config.process_results is not None:
        return None
    found = [_margin(task, metric, of_document) for of_document in requests]
    return None if None in found else np.array(found, np.float32)


def _margin(task: Any, metric: str, requests: Sequence[Any]) -> float | None:
    document = requests[0].doc
    choices, right = task.doc_to_choice(document), task.doc_to_target(document)
    if task.multiple_input:
        right = task.doc_to_text(document)
    if isinstance(right, str) and right in choices:
        right = choices.index(right)
    if not isinstance(right, int) or not 0 <= right < len(choices) or len(choices) < 2:
        return None
    lengths = [_LENGTHS[metric](choice) for choice in choices]
    if not all(lengths):
        return None
    scores = [r.resps[0][0] / length for r, length in zip(requests, lengths, strict=False)]
    return float(max(score for i, score in enumerate(scores) if i != right) - scores[right])
