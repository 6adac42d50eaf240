"""The metrics of tasks that are not better when they are larger."""

#: Bits that a language model needs for a byte of UTF-8: nats / ln 2 / bytes, over all documents together.
BITS_PER_BYTE = "bits_per_byte"


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value of the metric is the better one.

    Example:
        >>> lower_is_better("bits_per_byte"), lower_is_better("accuracy")
        (True, False)
    """
    return metric == BITS_PER_BYTE
