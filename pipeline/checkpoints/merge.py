"""Merge whole state dicts of any architecture into one, for `lines merge`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.checkpoints.batch_statistics import Reach, average, shares_and_unit, statistics_of
from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.edit import Edit, Edited, State
from pipeline.checkpoints.lazy import only
from pipeline.checkpoints.pieces import outline, pieces_of
from pipeline.checkpoints.threads import single_threads
from pipeline.checkpoints.writing import Sink
from pipeline.merging.scaling import Coefficients, LayerSizes
from pipeline.merging.task_vectors import NamedTensors, check_agree
from pipeline.recipe import AUTO, Recipe
from tasks.base import LayerMap
from tasks.batch_norm import is_statistic

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged model that is written.

    Attributes:
        alpha: the recipe's alpha as a number (equation 2 resolved), or its constant (`scaling.alpha_is_constant`).
        lambdas: the coefficient outside the blocks and of each block.
        sizes: numbers of edited parameters outside the blocks and in each block.
        change: ||theta - theta0|| (L2) over the edited tensors, after the cast.
        base_norm: ||theta0|| over the same tensors.
        averaged: names of statistics of batches, which are averaged (see `batch_statistics.average`).
    """

    alpha: float
    lambdas: Coefficients
    sizes: LayerSizes
    change: float
    base_norm: float
    averaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge whose tensors are computed while they are written.

    Attributes:
        recipe: of the merged model.
        base: theta0; tensors that are neither edited nor averaged are copied.
        edit: of the edited tensors.
        averaged: statistics of batches.
        measured: what replaces them in the output.
    """

    recipe: Recipe
    base: State
    edit: Edit
    averaged: State
    measured: State = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        experts: Sequence[Checkpoint],
        recipe: Recipe,
        layer_map: LayerMap,
        statistics: Sequence[State] = (),
    ) -> "Merge":
        """Prepare theta0 + lambda * combined for every edited tensor, and average statistics.

        Combines in float32 and casts once to each base tensor's type: the same bits as `resident.ResidentModel`.

        Args:
            base: theta0; each tensor under one name (see `tied.count_once`).
            experts: with the same names and shapes.
            recipe: of the merged model.
            layer_map: over the names of the edited tensors and of statistics of batches.
            statistics: one for each expert, if the recipe's method needs any (`statistics.open_statistics`).

        Raises:
            ValueError: if names or shapes differ, or the recipe does not fit.
        """
        for expert in experts:
            ours, theirs = outline(base.state), outline(expert.state)
            check_agree(NamedTensors(base.source, ours), NamedTensors(expert.source, theirs))
        theta0 = only(base.state, edited_names(base.state))
        edit = Edit(theta0, [expert.state for expert in experts], recipe, layer_map, statistics)
        averaged: State = {}
        if statistics_of(base.state):
            unit = partial(edit.resolve_alpha, AUTO["l1"])
            how = shares_and_unit(edit.method, edit.weights, edit.params, unit, bool(edit.chain.steps))
            averaged = average(base, experts, Reach(*how, edit.lambdas, layer_map))
        return cls(recipe, base.state, edit, averaged)

    def write(self, sink: Sink, watch: Callable[[int, int], None] = lambda done, total: None) -> Merged:
        """Compute all tensors, and give each piece to `sink`, under the base's names.

        Memory: a few pieces, or for a method that needs whole tensors a few times the largest.

        Args:
            sink: takes the pieces.
            watch: called in this thread with the number of entries that are done, and of all that are edited.

        Raises:
            ValueError: if the result is not finite, or equals the base although the recipe should change it; what
                `sink` got is then not to be used.
        """
        found = list(self._edited(sink, watch, Edited.squares))
        change, norm = (math.sqrt(math.fsum(squares)) for squares in zip(*found, strict=True)) if found else (0.0, 0.0)
        self._check_changed(change != 0)
        edit = self.edit
        return Merged(edit.alpha, edit.lambdas, edit.sizes, change, norm, tuple(self.averaged))

    def fill(self, sink: Sink) -> None:
        """Do what `write` does, without its norms.

        Raises:
            ValueError: as `write`.
        """
        changed = False

        def note(piece: Edited) -> None:
            nonlocal changed
            changed = changed or piece.differs()

        for _ in self._edited(sink, lambda done, total: None, note):
            pass
        self._check_changed(changed)

    def _edited(self, sink: Sink, watch: Callable[[int, int], None], measure: Callable[[Edited], _T]) -> Iterator[_T]:
        """Give all tensors to `sink`, and yield what is measured of each edited piece."""
        edited, done = set(), 0
        total = self.edit.sizes.outside + sum(self.edit.sizes.blocks)
        for pieces in computed(self.edit, sink, measure):
            for name, entries, measured in pieces:
                edited.add(name)
                done += entries
                yield measured
            watch(done, total)
        for name, like in outline(self.base).items():
            if name not in edited:
                state = next((s for s in (self.measured, self.averaged) if name in s), self.base)
                for start, piece in pieces_of(state, name, like.numel()):
                    sink.write(name, start, piece)

    def _check_changed(self, changed: bool) -> None:
        if not changed and self.recipe.method != "zero":
            raise ValueError(
                f"the merged weights equal the base's: the recipe ({self.recipe}) does nothing to them in the base's "
                "types"
            )


def computed(edit: Edit, sink: Sink, measure: Callable[[Edited], _T]) -> Iterator[list[tuple[str, int, _T]]]:
    """Give the pieces of an edit to `sink`; yield name, number of entries and what is measured of some."""

    def work(key: str) -> list[tuple[str, int, _T]]:
        pieces = []
        for done in edit.compute(key):
            sink.write(done.name, done.start, done.values)
            pieces.append((done.name, done.values.numel(), measure(done)))
        return pieces

    if not edit.is_cut:
        yield from map(work, edit.pieces)
        return
    with single_threads() as pool:
        yield from pool.map(work, edit.pieces)


def edited_names(state: State) -> list[str]:
    """Return the names of the tensors that a merge edits: all of floating point but statistics of batches."""
    return [n for n, tensor in outline(state).items() if tensor.is_floating_point() and not is_statistic(n)]


class Tensors(dict[str, Tensor]):
    """A state dict in memory that takes pieces."""

    def __init__(self, outlines: State) -> None:
        """Allocate tensors of the types and shapes of `outlines`."""
        super().__init__({name: torch.empty(t.shape, dtype=t.dtype) for name, t in outlines.items()})

    def write(self, name: str, start: int, piece: Tensor) -> None:
        """Take entries, as `writing.Sink.write`."""
        self[name].view(-1)[start : start + piece.numel()] = piece.reshape(-1)


def merge_states(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    recipe: Recipe,
    layer_map: LayerMap,
    statistics: Sequence[Mapping[str, Tensor]] = (),
) -> tuple[dict[str, Tensor], Merged]:
    """Merge into a new state dict in memory: `Merge.of` and `Merge.write`, whose arguments and errors it has.

    Example:
        >>> base = open_checkpoint("base.safetensors")
        >>> experts = [open_checkpoint("a.safetensors"), open_checkpoint("b.safetensors")]
        >>> layer_map, _ = detect(edited_names(base.state))
        >>> state, merged = merge_states(base, experts, Recipe.make("ties", "linear", "auto", 0.5), layer_map)
        >>> write_safetensors(Path("merged.safetensors"), state, {})
    """
    state = Tensors(outline(base.state))
    merged = Merge.of(base, experts, recipe, layer_map, statistics).write(state)
    return state, merged
