"""The steps of a recipe that follow its merge, one after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from pipeline.merging.lazy_tensors import Computed
from pipeline.merging.methods.base import Entry, Experts, Params, selected
from pipeline.merging.steps import STEPS, resolve_step
from pipeline.merging.steps.base import Apply, Merged, Place
from pipeline.recipe import Number, Recipe


def lazily_combined(experts: Experts, entry: Entry) -> Computed:
    """Return a combined vector, of which an entry is computed each time it is read."""
    return Computed(experts.deltas[0], partial(entry, experts))


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps after a merge, in their order: name and every declared parameter of each.

    Example:
        >>> Chain.of(Recipe.make("sum").followed_by([("norm_match", {})])).key
        (('norm_match', (('by', 'block'),)),)
    """

    steps: tuple[tuple[str, Params], ...]

    @classmethod
    def of(cls, recipe: Recipe) -> "Chain":
        """Return the chain of a recipe.

        Raises:
            ValueError: if a step is unknown, or does not allow a parameter.
        """
        return cls(tuple((name, resolve_step(name, dict(params), "then")) for name, params in recipe.then))

    @property
    def key(self) -> tuple[object, ...]:
        """What the result depends on besides the merge."""
        return tuple((name, tuple(sorted(params.items()))) for name, params in self.steps)

    @property
    def is_entrywise(self) -> bool:
        """Whether all steps are."""
        return all(STEPS[name].entrywise for name, _ in self.steps)

    def change(
        self, combined: Mapping[str, Tensor], experts: Experts, weights: Sequence[Number], place: Callable[[str], Place]
    ) -> Mapping[str, Tensor]:
        """Return a combined vector after all steps.

        Args:
            combined: the result of the merge; its tensors are not written to.
            experts: its inputs.
            weights: one for each expert; one of weight 0 takes no part.
            place: where the entries of a key belong.
        """
        if not self.steps:
            return combined
        used, changed = selected(experts, weights), dict(combined.items())
        del combined  # so that each entry is freed when its successor is there
        for name, params in self.steps:
            apply = STEPS[name].prepare(Merged(changed, used, place), params)
            for key, entry in changed.items():
                changed[key] = apply(used, key, place(key), entry)
        return changed

    def follow(
        self, entry: Entry, experts: Experts, weights: Sequence[Number], place: Callable[[str], Place]
    ) -> "Following":
        """Prepare all steps without the whole vector in memory; they then give the same bits as `change`.

        Each step that takes the whole vector computes what it follows once, here.

        Args:
            entry: computes an entry of the merge.
            experts: its inputs.
            weights: as of `change`.
            place: as of `change`.
        """
        following = Following((), weights)
        for name, params in self.steps:
            combined = lazily_combined(experts, following.after(entry, place))
            apply = STEPS[name].prepare(Merged(combined, selected(experts, weights), place), params)
            following = Following((*following.applies, apply), weights)
        return following


@dataclass(frozen=True, slots=True)
class Following:
    """Steps that are prepared, and the weights of the experts."""

    applies: tuple[Apply, ...]
    weights: Sequence[Number]

    def after(self, entry: Entry, place: Callable[[str], Place]) -> Entry:
        """Return what computes an entry after all steps, from what computes one of the merge."""
        if not self.applies:
            return entry

        def followed(experts: Experts, key: str) -> Tensor:
            used, found = selected(experts, self.weights), entry(experts, key)
            for apply in self.applies:
                found = apply(used, key, place(key), found)
            return found

        return followed


def by_name(blocks: Mapping[str, int]) -> Callable[[str], Place]:
    """Return where parameters belong, by their names; `blocks` is that of a layer map."""
    return lambda name: Place(name, blocks.get(name))
