"""Find the residual blocks in the names of a model's parameters."""

import re
from collections.abc import Iterable, Sequence

from pipeline.checkpoints.layouts import LAYOUTS
from tasks.base import LayerMap, block_numbers, dotted, first_gap
from tasks.block_names import PREFIX, BlockNames, recognise
from tasks.stacks import Stack, find_stacks

#: Stacks that an error shows.
_SHOWN = 4
_SHARED = r"(?:albert\.)?encoder\.albert_layer_groups\."


def find_blocks(names: Iterable[str], pattern: str | None) -> tuple[LayerMap, str]:
    """Find the blocks by a user's pattern, or by the layout if there is none.

    Returns:
        The layer map, and how the blocks were found: with the blocks' own numbers if these begin above 0 or leave gaps,
        and the tensors that a user's pattern leaves out of a stack of which it has others.

    Raises:
        ValueError: see `by_pattern` and `detect`.
    """
    names = list(names)
    if pattern:
        layer_map = by_pattern(names, pattern)
        return layer_map, f"blocks by {pattern!r}{_renumbered(names, pattern)}{_left_out(names, layer_map)}"
    layout = _layout(names)
    return _numbered(layout, names), layout.description + _renumbered(names, layout.pattern)


def detect(names: Iterable[str]) -> tuple[LayerMap, str]:
    """Find the residual blocks by the names of parameters.

    Returns:
        The layer map, and the layout's description.

    Raises:
        ValueError: if no known layout matches, or several do, or the blocks leave a gap; the error lists a `--blocks`
            for each stack of blocks that it finds in the names.

    Example:
        >>> layer_map, layout = detect(["h.0.mlp.c_fc.weight", "h.1.mlp.c_fc.weight", "wte.weight"])
        >>> layout, layer_map.num_blocks
        ('GPT-2, GPT-J, GPT-Neo, Falcon or Bloom', 2)
    """
    names = list(names)
    layout = _layout(names)
    return _numbered(layout, names), layout.description


def by_pattern(names: Iterable[str], pattern: str) -> LayerMap:
    """Find the blocks by a user's regular expression, matched at a name's start or after its wrapper prefixes.

    Args:
        names: of parameters.
        pattern: one group that is the block's number, or several that order the blocks, as a stage and a block do. The
            blocks are numbered from 0 in this order, so that the names' own numbers may begin at 1 and leave gaps.

    Raises:
        ValueError: if the pattern is not a regular expression, has no group or matches nothing, or if a group matches
            anything but digits.
    """
    names = list(names)
    try:
        compiled = re.compile(f"{PREFIX}(?:{pattern})")
    except re.error as error:
        raise ValueError(f"blocks: {pattern!r} is not a regular expression: {error}") from error
    if compiled.groups == 0:
        raise ValueError(rf"blocks: {pattern!r} must have a group that is the block's number, such as (\d+)")
    for match in filter(None, map(compiled.match, names)):
        if not all(group and group.isdecimal() for group in match.groups()):
            raise ValueError(f"blocks: {pattern!r} must match digits, got {match.groups()} in {match.string!r}")
    return LayerMap.from_pattern(names, compiled.pattern, gaps=True)


def _layout(names: Sequence[str]) -> BlockNames:
    """Return the one layout that matches."""
    stacks = find_stacks(names)
    found = recognise(LAYOUTS, names, stacks)
    if len(found) == 1:
        return found[0]
    what = f"several layouts match ({', '.join(f.description for f in found)})" if found else "no known layout matches"
    raise ValueError(
        f"blocks: {what} among {len(names)} names such as {', '.join(names[:3])}; give --blocks with a regular "
        f"expression whose group is the block's number, {_suggested_patterns(names, stacks)}"
    )


def _numbered(layout: BlockNames, names: Sequence[str]) -> LayerMap:
    try:
        return layout.layer_map(names)
    except ValueError as error:
        blocks = by_pattern(names, layout.pattern).num_blocks
        raise ValueError(
            f"blocks: {error}; if no tensor is missing, give --blocks '{layout.pattern}' ({blocks} blocks), which "
            "numbers them in their order"
        ) from error


def _suggested_patterns(names: Sequence[str], stacks: Sequence[Stack]) -> str:
    """Return patterns for a model's stacks of blocks, largest first."""
    if any(re.match(PREFIX + _SHARED, name) for name in names):
        return rf"here '{_SHARED}(\d+)\.' (1 block): ALBERT's layers share one block's weights, so depth has no effect"
    shown = [f"'{stack.pattern}' ({stack.blocks} blocks)" for stack in stacks[:_SHOWN]]
    return f"here {' or '.join(shown)}" if shown else r"such as 'encoder\.layers\.(\d+)\.'"


def _renumbered(names: Sequence[str], pattern: str) -> str:
    """Return which numbers in the names the blocks have, or nothing if both are the same."""
    keys = sorted(set(block_numbers(names, f"{PREFIX}(?:{pattern})").values()))
    return f" ({', '.join(map(dotted, keys))} are blocks 0 to {len(keys) - 1})" if first_gap(keys) else ""


def _left_out(names: Sequence[str], layer_map: LayerMap) -> str:
    """Return how many tensors of the same stack a pattern leaves out, as one without block 10 and above does."""
    stacks = [stack.names for stack in find_stacks(names) if any(name in layer_map.blocks for name in stack.names)]
    left = [name for members in stacks for name in members if name not in layer_map.blocks]
    return f", without {len(left)} tensors of the same stack such as {left[0]}" if left else ""
