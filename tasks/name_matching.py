"""Match the tensor names of one model that were saved with different prefixes.

Training programs wrap a model (`module.`, `_orig_mod.`, `net.`), and a model with a head holds the bare model under a
prefix (`bert.`, `model.`, `transformer.`). A prefix is removed, or added, where this gives more of the other's names.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

#: Modules around a model, or around one of its parts, that torch adds.
_AROUND = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: Names of averages of the weights (exponential moving average, stochastic weight averaging).
_COPY = re.compile(r"(?:^|[_.])(?:ema|swa|avg|averaged?|teacher|shadow)(?:[_.]|$)|EMA")
#: In the state dict of torch's averaged models, outside their prefix.
_COUNT = "n_averaged"
#: Prefixes that are tried of each kind, the most frequent first.
_TRIED = 4

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True, slots=True)
class NameMatch:
    """The names of a model for those of another.

    Attributes:
        names: each known name that has a partner -> the given name.
        copies: given names of averaged copies of tensors in `names`.
    """

    names: Mapping[str, str]
    copies: Sequence[str] = ()

    @property
    def note(self) -> str:
        """How names differ, by an example; "" if they do not."""
        pair = next(((given, known) for known, given in self.names.items() if given != known), None)
        return f"{pair[0]} is {pair[1]}" if pair else ""


def is_copy(name: str) -> bool:
    """Return whether a name or prefix is that of an averaged copy of the weights."""
    return bool(_COPY.search(name))


def match_names(given: Shapes, known: Shapes) -> NameMatch:
    """Find which of the `given` tensors are the `known` ones, with or without a prefix, or within torch's wrappers.

    A prefix counts if it makes more names of equal shape agree than names as they are, each with one partner, and at
    least half of the smaller model. If several do equally well, names stay as they are, unless all but one are those of
    averaged copies.

    Example:
        >>> shape = torch.Size([2])
        >>> match_names({"module.h.w": shape, "module.h.b": shape}, {"h.w": shape, "h.b": shape}).names
        {'h.w': 'module.h.w', 'h.b': 'module.h.b'}
    """
    same = NameMatch({name: name for name in known if name in given})
    if len(same.names) == len(known):
        return same
    ours, theirs = without_wrappers(known), without_wrappers(given)
    shapes = {name: known[full] for name, full in ours.items()}, {name: given[full] for name, full in theirs.items()}
    found: dict[tuple[str, str], dict[str, str]] = {}
    for removed, added in _prefixes(*shapes):
        if (pairs := _pairs(theirs, ours, removed, added)) is not None:
            found[removed, added] = pairs
    scores = {key: sum(given[g] == known[k] for k, g in pairs.items()) for key, pairs in found.items()}
    best = max(scores.values(), default=0)
    if best <= _agreeing(same.names, given, known) or 2 * best < min(len(given), len(known)):
        return same
    first = [key for key, score in scores.items() if score == best]
    trained = [key for key in first if not is_copy(key[0])] or first
    if len({tuple(found[key].items()) for key in trained}) > 1:
        return same
    names = found[trained[0]]
    others = [removed for removed, _ in found if removed != trained[0][0] and is_copy(removed)]
    copies = [full for name, full in theirs.items() for p in others if name.startswith(p) and name[len(p) :] in ours]
    return NameMatch(names, copies)


def without_wrappers(names: Iterable[str], keep: Collection[str] = ()) -> dict[str, str]:
    """Return each name without torch's wrappers and the prefix that all names share -> the name.

    Args:
        names: of a state dict.
        keep: first parts of names that are no wrappers.
    """
    found = {_AROUND.sub("", name): name for name in names}
    while len(found) > 1 and len(firsts := {name.partition(".")[0] for name in found if name != _COUNT}) == 1:
        (first,) = firsts
        if first in keep or first in found:
            break
        found = {name.removeprefix(f"{first}."): full for name, full in found.items()}
    return found


def _prefixes(ours: Shapes, theirs: Shapes) -> Iterator[tuple[str, str]]:
    """Yield (prefix to remove, prefix to add), the most frequent first; none of both first."""
    yield "", ""
    yield from ((prefix, "") for prefix in _most_frequent(theirs, ours))
    yield from (("", prefix) for prefix in _most_frequent(ours, theirs))


def _most_frequent(longer: Shapes, shorter: Shapes) -> list[str]:
    """Return the prefixes without which tensors of `longer` are tensors of `shorter`."""
    counts = Counter(
        name[: dot.end()]
        for name, shape in longer.items()
        for dot in re.finditer(r"\.", name)
        if shorter.get(name[dot.end() :]) == shape
    )
    return [prefix for prefix, _ in counts.most_common(_TRIED)]


def _pairs(theirs: Mapping[str, str], ours: Mapping[str, str], removed: str, added: str) -> dict[str, str] | None:
    """Return known name -> given name after a change of prefixes; None if two given names become one."""
    pairs: dict[str, str] = {}
    for name, full in theirs.items():
        changed = added + name.removeprefix(removed)
        target = changed if changed in ours else name
        if target not in ours:
            continue
        if ours[target] in pairs:
            return None
        pairs[ours[target]] = full
    return pairs


def _agreeing(names: Mapping[str, str], given: Shapes, known: Shapes) -> int:
    return sum(given[g] == known[k] for k, g in names.items())
