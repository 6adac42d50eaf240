"""The leave-one-group-out gate: what an edit or merge loses when a third of the blocks loses its update."""

#: The groups of blocks that are left out, one at a time.
THIRDS = ("first", "middle", "last")


def thirds(num_blocks: int) -> tuple[range, ...]:
    """Return the blocks of each third, as evenly as they can be cut.

    Example:
        >>> thirds(8)
        (range(0, 2), range(2, 5), range(5, 8))
    """
    cuts = [num_blocks * i // len(THIRDS) for i in range(len(THIRDS) + 1)]
    return tuple(range(start, stop) for start, stop in zip(cuts, cuts[1:], strict=False))
