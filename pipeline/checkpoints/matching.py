"""Match the experts of `lines merge` with the base: names with other prefixes, heads, and buffers."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.lazy import Renamed, only
from pipeline.checkpoints.pieces import outline
from tasks.name_matching import match_names
from tasks.tensors import first_names, is_buffer

#: Tensors that a merge copies from the base if they differ: counters and positions.
_COUNTER = re.compile(
    r".*(num_batches_tracked|relative_position_index|relative_coords|steps?|iterations?|count(er)?s?)"
)
_LISTED = 6
_INTEGERS = "no floating-point numbers, and not the base's; if they are quantised: dequantise first; else"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is merged of a base and its experts, and what is not.

    Attributes:
        experts: their states hold the tensors of the base that are merged, if the expert has them.
        excluded: names of tensors of the base that the user excludes.
        buffers: names of tensors of the base that are no weights.
        left_out: names that only experts have: excluded ones and buffers.
    """

    experts: Sequence[Checkpoint]
    excluded: Sequence[str]
    buffers: Sequence[str]
    left_out: Sequence[str]


@dataclass(frozen=True, slots=True)
class Renames:
    """Experts under the base's names.

    Attributes:
        experts: in their order.
        names: for each expert, its own names -> the base's.
        notes: how names were matched, for the user.
        copies: names of averaged copies of matched tensors, which are left out.
    """

    experts: Sequence[Checkpoint]
    names: Sequence[Mapping[str, str]]
    notes: Sequence[str]
    copies: Sequence[str]


def rename(base: Checkpoint, experts: Sequence[Checkpoint]) -> Renames:
    """Give the experts' tensors the base's names where these match."""
    renamed, owns, notes, copies = [], [], [], dict[str, None]()
    for expert in experts:
        given, known = ({n: t.shape for n, t in outline(c.state).items()} for c in (expert, base))
        match = match_names(given, known)
        ours = {theirs: name for name, theirs in match.names.items()}
        names = {ours.get(n, n): n for n in given if n not in match.copies}
        renamed.append(replace(expert, state=Renamed.of(expert.state, names)))
        owns.append(ours)
        copies |= dict.fromkeys(match.copies)
        if match.note:
            notes.append(f"{expert.source}: names are matched with the base's ({match.note})")
        if match.copies:
            notes.append(
                f"{expert.source}: {len(match.copies)} tensors are averaged copies and left out "
                f"({first_names(match.copies)})"
            )
    return Renames(renamed, owns, notes, list(copies))


def choose(base: Checkpoint, experts: Sequence[Checkpoint], exclude: str | None = None) -> Chosen:
    """Choose the tensors that are merged.

    Args:
        base: whose names and shapes count.
        experts: under the base's names.
        exclude: a regular expression, found anywhere in the names of tensors that stay the base's.

    Raises:
        ValueError: if an expert has tensors that the base does not have or has in another shape, or integers that
            differ, or lacks what another has, or `exclude` is no regular expression or matches nothing; the first names
            are given, and the option that leaves them out.
    """
    pattern = _compiled(exclude)
    excluded = [n for n in base.state if pattern and pattern.search(n)]
    buffers = [n for n, t in outline(base.state).items() if is_buffer(n, t) and n not in excluded]
    chosen, left_out = [], dict[str, None]()
    for expert in experts:
        names = [n for n in expert.state if n in base.state and n not in excluded and n not in buffers]
        others = {n: t for n, t in outline(expert.state).items() if n not in base.state}
        left = [n for n, t in others.items() if (pattern and pattern.search(n)) or is_buffer(n, t)]
        _check(base, expert, names, [n for n in others if n not in left])
        chosen.append(replace(expert, state=only(expert.state, names)))
        left_out |= dict.fromkeys(left)
    _check_missing(base, chosen, {*excluded, *buffers})
    if pattern and not excluded and not any(map(pattern.search, left_out)):
        raise ValueError(f"--exclude: {exclude!r} matches no name in the base or the experts")
    if pattern and len(excluded) + len(buffers) == len(base.state):
        raise ValueError(f"--exclude: {exclude!r} leaves nothing to merge")
    return Chosen(chosen, excluded, buffers, list(left_out))


def _compiled(exclude: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(exclude) if exclude is not None else None
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"--exclude: {exclude!r} is not a regular expression: {error}") from error


def _check(base: Checkpoint, expert: Checkpoint, names: Sequence[str], others: Sequence[str]) -> None:
    """Check that an expert has no tensors of its own, the base's shapes, and no integers of its own."""
    given, known = outline(expert.state), outline(base.state)
    shapes = [n for n in names if given[n].shape != known[n].shape]
    faults = [
        f"{kind}: {first_names(found)}"
        for kind, found in (
            (f"not in {base.source}", others),
            ("of another shape", [_shapes(n, given[n], known[n]) for n in shapes]),
        )
        if found
    ]
    if faults:
        raise ValueError(
            f"{expert.source}: does not match {base.source}: {'; '.join(faults)}; if these are heads or a vocabulary "
            f"of its own, --exclude '{_suggestion([*others, *shapes])}' leaves them out, and the base's stay"
        )
    integers = [n for n in names if not (given[n].is_floating_point() and known[n].is_floating_point())]
    if bad := [n for n in integers if _differs(n, base.state[n], expert.state[n])]:
        raise ValueError(
            f"{expert.source}: {first_names([f'{n} ({given[n].dtype})' for n in bad])}: {_INTEGERS} "
            f"--exclude '{_suggestion(bad)}' keeps the base's"
        )


def _check_missing(base: Checkpoint, experts: Sequence[Checkpoint], kept: Collection[str]) -> None:
    """Check that every expert has each tensor that another one has."""
    some = {name for expert in experts for name in expert.state}
    for expert in experts:
        if missing := [n for n in base.state if n in some and n not in kept and n not in expert.state]:
            raise ValueError(
                f"{expert.source}: does not match {base.source}: missing: {first_names(missing)}; --exclude "
                f"'{_suggestion(missing)}' keeps the base's"
            )


def _shapes(name: str, found: Tensor, expected: Tensor) -> str:
    return f"{name} {tuple(found.shape)} instead of {tuple(expected.shape)}"


def _differs(name: str, ours: Tensor, theirs: Tensor) -> bool:
    """Return whether an integer tensor is neither a counter nor equal to the base's."""
    if ours.numel() < 2 or ours.dtype == torch.bool or _COUNTER.fullmatch(name):
        return False
    return ours.is_floating_point() != theirs.is_floating_point() or not torch.equal(ours, theirs.to(ours.dtype))


def _suggestion(names: Sequence[str]) -> str:
    """Return a regular expression for the modules of these tensors; a placeholder if there are many."""
    modules = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
    return "|".join(f"^{re.escape(module)}" for module in modules) if len(modules) <= _LISTED else "REGEX"
