"""Merge the files of models into one file, or into a folder for transformers."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.checkpoints.batch_statistics import statistics_of
from pipeline.checkpoints.blocks import find_blocks
from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.coverage import AVERAGED, Part, edited_parts, present, with_measured
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lazy import only, open_checkpoint
from pipeline.checkpoints.matching import Chosen, choose, rename
from pipeline.checkpoints.merge import Merge, Merged, Tensors, edited_names
from pipeline.checkpoints.merge_output import FILE, new_output
from pipeline.checkpoints.model_folder import Card, missing_files
from pipeline.checkpoints.pieces import outline
from pipeline.checkpoints.statistics import check_sources, open_statistics
from pipeline.checkpoints.threads import single_threads
from pipeline.checkpoints.tied import CountedOnce, count_once
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import resolve_weights
from pipeline.merging.scaling import is_equal_norm
from pipeline.parameters import resolve
from pipeline.recipe import Recipe
from tasks.base import LayerMap

if TYPE_CHECKING:
    from pipeline.checkpoints.recalibration import Recalibration


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
class MergedFile:
    """What was written.

    Attributes:
        merged: the merged model.
        layout: how the blocks were found.
        num_blocks: how many there are.
        coverage: what became of every tensor of the base.
        notes: how names of experts were matched with the base's, and files that a folder lacks.
    """

    merged: Merged
    layout: str
    num_blocks: int
    coverage: Sequence[Part]
    notes: Sequence[str] = ()


def merge_files(sources: MergeSources, recipe: Recipe, output: Path) -> MergedFile:
    """Merge models into `output`: a .safetensors file whose metadata hold recipe and fingerprints, or else a folder.

    Example:
        sources = MergeSources("base.safetensors", ["cars.pt", "dtd.pt"])
        merge_files(sources, Recipe.make("sum", "linear", alpha=0.3, beta=0.5), Path("merged.safetensors"))

    Raises:
        ValueError: if a source cannot be read or does not fit the others, the recipe does not fit the experts, or the
            merge changes nothing or is not finite.
    """
    _check_recipe(recipe, sources)
    recalibration = _recalibration(sources)
    with single_threads() as pool:
        base, *experts = pool.map(open_checkpoint, [sources.base, *sources.experts])
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
    measured: dict[str, Tensor] = {}
    if recalibration:
        state = Tensors(outline(merge.base))
        merge.write(state)
        measured = recalibration.measure(state)
        coverage = with_measured(coverage, measured, len(recalibration.files))
    if renames.copies:
        coverage.append(Part("averaged copies in experts, left out", len(renames.copies), 0, tuple(renames.copies)))
    metadata = {
        "lines_sweep.recipe": recipe.canonical().decode(),
        "lines_sweep.constant" if is_equal_norm(recipe) else "lines_sweep.alpha": repr(merge.edit.alpha),
        "lines_sweep.base": base.fingerprint,
        "lines_sweep.experts": json.dumps([expert.fingerprint for expert in renames.experts]),
        "lines_sweep.coverage": json.dumps([part.to_json() for part in coverage]),
    }
    if statistics:
        metadata["lines_sweep.statistics"] = json.dumps([s.fingerprint for s in statistics])
    if sources.exclude is not None:
        metadata["lines_sweep.exclude"] = sources.exclude
    if sources.recalibrate is not None:
        metadata["lines_sweep.recalibrate"] = json.dumps({"model": sources.model, "images": sources.recalibrate})
    files, card = locate(sources.base), Card(sources.base, sources.experts, recipe.canonical().decode(), coverage)
    with new_output(output, files, outline(merge.base), once.tied, metadata, card) as sink:
        merged = replace(merge, measured=measured).write(sink)
    notes = [*renames.notes, *(missing_files(files) if output.suffix != FILE else [])]
    return MergedFile(merged, layout, layer_map.num_blocks, coverage, notes)


def _check_recipe(recipe: Recipe, sources: MergeSources) -> None:
    """Check all that needs no file, as reading may take minutes."""
    method = METHODS[recipe.method]
    if recipe.method == "zero":
        raise ValueError("the result would be the base itself: choose another --method, --alpha or --beta")
    if recipe.method == "weighted" and not recipe.weights:
        raise ValueError("--method weighted: needs --weight, one for each expert")
    method.check(resolve_weights(recipe.weights, len(sources.experts)), resolve(method.parameters, dict(recipe.params)))
    check_sources(recipe.method, method, sources.statistics, len(sources.experts))


def _recalibration(sources: MergeSources) -> "Recalibration | None":
    if sources.recalibrate is None:
        if sources.model is not None:
            raise ValueError("--model: is used with --recalibrate only; leave it out, or name a folder of images there")
        return None
    from pipeline.checkpoints.recalibration import Recalibration  # open_clip and timm take seconds

    return Recalibration.of(sources.recalibrate, sources.model)


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
