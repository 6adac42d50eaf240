"""Prepare the merge of models: names matched, tied tensors counted once, blocks found, every tensor accounted for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.checkpoints.batch_statistics import statistics_of
from pipeline.checkpoints.blocks import find_blocks
from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.coverage import AVERAGED, Part, edited_parts, present
from pipeline.checkpoints.lazy import only
from pipeline.checkpoints.matching import Chosen, choose, rename
from pipeline.checkpoints.merge import Merge, edited_names
from pipeline.checkpoints.pieces import outline
from pipeline.checkpoints.statistics import check_sources, open_statistics
from pipeline.checkpoints.tied import CountedOnce, count_once
from pipeline.merging.chain import Chain
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import resolve_weights
from pipeline.parameters import resolve
from pipeline.recipe import Recipe
from tasks.base import LayerMap


@dataclass(frozen=True, slots=True)
class MergeSources:
    """What to merge, as the user names it.

    Attributes:
        base: the pre-trained model.
        experts: fine-tuned models.
        statistics: one file for each expert, if the method needs them.
        blocks: a regular expression whose group is a block's number; None to recognise the layout.
        exclude: a regular expression in the names of tensors that stay the base's, such as heads.
        recalibrate: a folder of images on which statistics of batches are measured again.
        model: the architecture, for `recalibrate` (see `tasks.vision.image_models.image_model`).
    """

    base: str
    experts: Sequence[str]
    statistics: Sequence[str] = ()
    blocks: str | None = None
    exclude: str | None = None
    recalibrate: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedMerge:
    """A merge before its tensors are computed.

    Attributes:
        merge: of the tensors, each under one name.
        tied: other name in the base -> the name of the same tensor.
        layout: how the blocks were found.
        num_blocks: how many there are.
        coverage: what becomes of every tensor of the base.
        notes: how names of experts were matched with the base's.
        statistics: fingerprints of their files.
    """

    merge: Merge
    tied: dict[str, str]
    layout: str
    num_blocks: int
    coverage: Sequence[Part]
    notes: Sequence[str]
    statistics: Sequence[str]


def prepare_merge(
    base: Checkpoint, experts: Sequence[Checkpoint], recipe: Recipe, sources: MergeSources
) -> PreparedMerge:
    """Prepare the merge of models that are open.

    Args:
        base: the pre-trained model.
        experts: fine-tuned models.
        recipe: of the merged model.
        sources: whose `statistics`, `blocks` and `exclude` count.

    Raises:
        ValueError: if the models do not fit each other, or the recipe does not fit them.
    """
    renames = rename(base, experts)
    once = _flat(count_once(base, renames.experts))
    names = [*edited_names(once.base.state), *statistics_of(once.base.state)]
    layer_map, layout = find_blocks(names, sources.blocks)
    chosen = choose(once.base, once.experts, sources.exclude)
    base_only = _in_no_expert(once.base, chosen, layer_map)
    left = {*base_only, *chosen.excluded, *chosen.buffers}
    rest = replace(base, state=only(once.base.state, [n for n in once.base.state if n not in left]))
    theta0 = only(rest.state, edited_names(rest.state))
    method, not_merged = METHODS[recipe.method], {*left, *chosen.left_out}
    statistics = open_statistics(method, sources.statistics, chosen.experts, theta0, renames.names, not_merged)
    merge = Merge.of(rest, chosen.experts, recipe, layer_map, [s.state for s in statistics])
    merge = replace(merge, base=once.base.state)
    coverage = _coverage(once, chosen, base_only, merge, layer_map)
    if copies := tuple(renames.copies):
        coverage.append(Part("averaged copies in experts, left out", len(copies), 0, copies))
    prints = [s.fingerprint for s in statistics]
    return PreparedMerge(merge, once.tied, layout, layer_map.num_blocks, coverage, renames.notes, prints)


def check_recipe(recipe: Recipe, sources: MergeSources) -> None:
    """Check all that needs no file, as reading may take minutes."""
    method = METHODS[recipe.method]
    if recipe.method == "zero":
        raise ValueError("the result would be the base itself: choose another --method, --alpha or --beta")
    if recipe.method == "weighted" and not recipe.weights:
        raise ValueError("--method weighted: needs --weight, one for each expert")
    method.check(resolve_weights(recipe.weights, len(sources.experts)), resolve(method.parameters, dict(recipe.params)))
    Chain.of(recipe)
    check_sources(recipe.method, method, sources.statistics, len(sources.experts))


def _flat(once: CountedOnce) -> CountedOnce:
    """Copy tensors of pickles whose numbers are not adjacent in memory, so that they can be cut into pieces."""

    def flat(checkpoint: Checkpoint) -> Checkpoint:
        state = checkpoint.state
        return (
            replace(checkpoint, state={n: t.contiguous() for n, t in state.items()})
            if isinstance(state, dict)
            else checkpoint
        )

    return replace(once, base=flat(once.base), experts=[flat(expert) for expert in once.experts])


def _in_no_expert(base: Checkpoint, chosen: Chosen, layer_map: LayerMap) -> list[str]:
    """Return tensors outside the blocks that no expert has: image towers are often saved without the text tower.

    A tensor that only some experts lack, or one of a block, is not returned: it is an error of the merge.
    """
    names = {*chosen.excluded, *chosen.buffers, *(name for expert in chosen.experts for name in expert.state)}
    return [name for name in base.state if name not in names and name not in layer_map.blocks]


def _coverage(
    once: CountedOnce, chosen: Chosen, base_only: Sequence[str], merge: Merge, layer_map: LayerMap
) -> list[Part]:
    state, tied = outline(merge.base), (*once.tied, *once.dropped)
    left = {*base_only, *chosen.excluded, *chosen.buffers, *merge.averaged}
    weights = {name: state[name] for name in edited_names(merge.base) if name not in left}
    others = [name for name in state if name not in weights and name not in left]

    def part(what: str, names: Iterable[str]) -> Part:
        return Part.of(what, {name: state[name] for name in names})

    return present(
        [
            *edited_parts(weights, layer_map.blocks),
            part(AVERAGED, merge.averaged),
            part("in no expert, so they stay the base's", base_only),
            part("no weights, so they stay the base's", [*others, *chosen.buffers]),
            part("excluded, so they stay the base's", chosen.excluded),
            Part("only in experts, and left out", len(chosen.left_out), 0, tuple(chosen.left_out)),
            Part("other names of tied tensors, which count once", len(tied), 0, tied),
        ]
    )
