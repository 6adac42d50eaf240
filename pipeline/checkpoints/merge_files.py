"""Merge the files of models into one file, or into a folder for transformers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.checkpoints.coverage import Part, with_measured
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lazy import open_checkpoint
from pipeline.checkpoints.merge import Merged, Tensors
from pipeline.checkpoints.merge_output import FILE, new_output
from pipeline.checkpoints.model_folder import Card, missing_files
from pipeline.checkpoints.pieces import outline
from pipeline.checkpoints.prepared_merge import MergeSources, check_recipe, prepare_merge
from pipeline.checkpoints.threads import single_threads
from pipeline.merging.scaling import alpha_is_constant
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.checkpoints.recalibration import Recalibration


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


def merge_files(
    sources: MergeSources, recipe: Recipe, output: Path, watch: Callable[[int, int], None] = lambda done, total: None
) -> MergedFile:
    """Merge models into `output`: a .safetensors file whose metadata hold recipe and fingerprints, or else a folder.

    Args:
        sources: what to merge.
        recipe: of the merged model.
        output: the file, or the folder.
        watch: called with the number of entries that are written, and of all that are edited.

    Example:
        sources = MergeSources("base.safetensors", ["cars.pt", "dtd.pt"])
        merge_files(sources, Recipe.make("sum", "linear", alpha=0.3, beta=0.5), Path("merged.safetensors"))

    Raises:
        ValueError: if a source cannot be read or does not fit the others, the recipe does not fit the experts, or the
            merge changes nothing or is not finite.
    """
    check_recipe(recipe, sources)
    recalibration = _recalibration(sources)
    with single_threads() as pool:
        base, *experts = pool.map(open_checkpoint, [sources.base, *sources.experts])
    prepared = prepare_merge(base, experts, recipe, sources)
    merge, coverage = prepared.merge, list(prepared.coverage)
    measured: dict[str, Tensor] = {}
    if recalibration:
        state = Tensors(outline(merge.base))
        merge.write(state)
        measured = recalibration.measure(state)
        coverage = with_measured(coverage, measured, len(recalibration.files))
    metadata = {
        "lines_sweep.recipe": recipe.canonical().decode(),
        "lines_sweep.constant" if alpha_is_constant(recipe) else "lines_sweep.alpha": repr(merge.edit.alpha),
        "lines_sweep.base": base.fingerprint,
        "lines_sweep.experts": json.dumps([expert.fingerprint for expert in experts]),
        "lines_sweep.coverage": json.dumps([part.to_json() for part in coverage]),
    }
    if prepared.statistics:
        metadata["lines_sweep.statistics"] = json.dumps(prepared.statistics)
    if sources.exclude is not None:
        metadata["lines_sweep.exclude"] = sources.exclude
    if sources.recalibrate is not None:
        metadata["lines_sweep.recalibrate"] = json.dumps({"model": sources.model, "images": sources.recalibrate})
    files, card = locate(sources.base), Card(sources.base, sources.experts, recipe.canonical().decode(), coverage)
    with new_output(output, files, outline(merge.base), prepared.tied, metadata, card) as sink:
        merged = replace(merge, measured=measured).write(sink, watch)
    notes = [*prepared.notes, *(missing_files(files) if output.suffix != FILE else [])]
    return MergedFile(merged, prepared.layout, prepared.num_blocks, coverage, notes)


def _recalibration(sources: MergeSources) -> "Recalibration | None":
    if sources.recalibrate is None:
        if sources.model is not None:
            raise ValueError("--model: is used with --recalibrate only; leave it out, or name a folder of images there")
        return None
    from pipeline.checkpoints.recalibration import Recalibration  # open_clip and timm take seconds

    return Recalibration.of(sources.recalibrate, sources.model)
