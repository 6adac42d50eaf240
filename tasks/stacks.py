"""Find the stacks of blocks in parameter names: numbered modules side by side, of any model family."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A block has at least this many tensors; a convolution with its BatchNorm, as in stems, has five.
_TENSORS = 6
#: Numbered parts of a block, which is then no stage.
_PARTS = re.compile("conv|expert|branch")


@dataclass(frozen=True, slots=True)
class Stack:
    r"""Blocks side by side.

    Attributes:
        pattern: a regular expression that finds exactly these blocks, such as `encoder\.layers\.(\d+)\.`; with two
            groups if the numbered modules are stages of numbered blocks.
        blocks: number of blocks.
        names: of their tensors.
        attention: whether the blocks hold attention, or the mixer of a state-space model.
    """

    pattern: str
    blocks: int
    names: Sequence[str]
    attention: bool


def find_stacks(names: Iterable[str]) -> list[Stack]:
    r"""Find all stacks of at least two blocks, largest first.

    The numbers nearest to a name's start count, so that the experts of a block are no stack.

    Example:
        >>> parts = ["attn.qkv", "attn.proj", "norm1", "norm2", "mlp.up", "mlp.down"]
        >>> [(s.pattern, s.blocks) for s in find_stacks(f"tower.{i}.{part}.weight" for i in (0, 1) for part in parts)]
        [('tower\\.(\\d+)\\.', 2)]
    """
    names = list(names)
    stacks = [_stack(prefix, members, names) for prefix, members in _numbered(names).items()]
    return sorted(stacks, key=lambda stack: -len(stack.names))


#: Number of a module -> the rest of its tensors' names.
_Members = dict[int, list[str]]


def _numbered(names: Sequence[str], least: int = 2) -> dict[str, _Members]:
    """Group names by the first number that at least `least` modules of one prefix have, each with enough tensors."""
    splits = {name: _splits(name) for name in names}
    sizes = Counter((prefix, number) for found in splits.values() for prefix, number, _ in found)
    modules = Counter(prefix for (prefix, _), size in sizes.items() if size >= _TENSORS)
    groups: dict[str, _Members] = defaultdict(lambda: defaultdict(list))
    for found in splits.values():
        for prefix, number, rest in found:
            if modules[prefix] >= least:
                if sizes[prefix, number] >= _TENSORS:
                    groups[prefix][number].append(rest)
                break
    return groups


def _splits(name: str) -> list[tuple[str, int, str]]:
    """Split a name at each number that ends a component: (what is before, the number, what follows the dot)."""
    return [(name[: m.start()], int(m[0][:-1]), name[m.end() :]) for m in re.finditer(r"(?<!\d)\d+\.", name)]


def _stack(prefix: str, members: _Members, names: Sequence[str]) -> Stack:
    inner = _blocks_of_stages(members)
    pattern = re.escape(prefix) + r"(\d+)\."
    blocks, children = len(members), {rest.split(".")[0] for rests in members.values() for rest in rests}
    if inner is not None:
        within, keys = inner
        pattern += re.escape(within) + r"(\d+)\."
        blocks, children = len(keys), {child for found in keys.values() for child in found}
    matched = [match for name in names if (match := re.match(pattern, name))]
    if len({match.groups() for match in matched}) > blocks:
        pattern += f"(?={'|'.join(re.escape(child) for child in sorted(children))})"
        matched = [match for match in matched if re.match(pattern, match.string)]
    own = [match.string for match in matched]
    attention = sum(any(_is_attention(rest) for rest in rests) for rests in members.values()) > 1
    return Stack(pattern, blocks, own, attention)


def _is_attention(rest: str) -> bool:
    return re.search(r"att|mixer\.", rest, re.IGNORECASE) is not None


def _blocks_of_stages(members: _Members) -> tuple[str, dict[tuple[int, int], set[str]]] | None:
    """Return what is between the numbers of stage and block, and (stage, block) -> its children, if these are stages.

    In stages, most tensors are in numbered modules with the same tensors, and attention is in these modules or in the
    downsampling. The sublayers of a T5 block differ from each other, and a block of experts has its own attention.
    """
    prefixes = Counter(split[0][0] for rests in members.values() for rest in rests if (split := _splits(rest)))
    if not prefixes:
        return None
    within = prefixes.most_common(1)[0][0]
    if _PARTS.search(within):
        return None
    children: dict[tuple[int, int], set[str]] = defaultdict(set)
    tensors: dict[tuple[int, int], set[str]] = defaultdict(set)
    for stage, rests in members.items():
        inside = [match for rest in rests if (match := re.match(re.escape(within) + r"(\d+)\.(.+)", rest))]
        own = set(rests) - {match.string for match in inside}
        if any(_is_attention(rest) for rest in own if not rest.startswith("down")):
            return None
        for match in inside:
            children[stage, int(match[1])].add(match[2].split(".")[0])
            tensors[stage, int(match[1])].add(match[2])
    keys = {key: found for key, found in children.items() if len(tensors[key]) >= _TENSORS}
    if len(keys) <= len(members) or not _share_tensors(tensors, sorted(keys)):
        return None
    return within, keys


def _share_tensors(tensors: dict[tuple[int, int], set[str]], keys: Sequence[tuple[int, int]]) -> bool:
    """Return whether neighbours in a stage share at least half of their tensors' names, in most cases."""
    pairs = [(tensors[a], tensors[b]) for a, b in zip(keys, keys[1:], strict=False) if a[0] == b[0]]
    same = [len(a & b) >= len(a | b) / 2 for a, b in pairs]
    return sum(same) > len(same) / 2
