"""Merge the models of a mergekit recipe into a file or a folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pipeline.checkpoints.blocks import find_blocks
from pipeline.checkpoints.coverage import Part, present
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lazy import Difference, only
from pipeline.checkpoints.matching import choose, rename
from pipeline.checkpoints.merge import edited_names
from pipeline.checkpoints.merge_output import FILE, new_output
from pipeline.checkpoints.mergekit.schedule import Schedule, TensorPlace
from pipeline.checkpoints.mergekit.sources import ModelSource, check_vocabularies, sources_of
from pipeline.checkpoints.mergekit.steps import Call, Step
from pipeline.checkpoints.model_folder import Card, missing_files
from pipeline.checkpoints.pieces import is_finite, outline
from pipeline.checkpoints.tied import count_once
from pipeline.checkpoints.writing import Sink
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts
from pipeline.merging.task_vectors import NamedTensors, check_agree
from tasks.base import LayerMap
from tasks.stacks import find_stacks


@dataclass(frozen=True, slots=True)
class WrittenRecipe:
    """What a recipe made.

    Attributes:
        layers: how the layers were found, and how many there are; "" if the recipe does not ask for them.
        coverage: what became of every tensor.
        notes: on names, parameters without an effect, and missing files.
    """

    layers: str
    coverage: Sequence[Part]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Models:
    """The models of a recipe under one set of names, and the layers of their tensors."""

    states: Mapping[str, Mapping[str, Tensor]]
    layers: LayerMap
    found: str


def merge_recipe(
    schedule: Schedule, output: Path, blocks: str | None = None, exclude: str | None = None
) -> WrittenRecipe:
    """Merge by a recipe into `output`: a .safetensors file, or else a folder that from_pretrained loads.

    Each tensor is computed in float32 and cast once to `out_dtype`, else `dtype`, else the widest of the models' types.

    Args:
        schedule: the recipe.
        output: of the merged model.
        blocks: a regular expression whose group is a layer's number; None to recognise the layout.
        exclude: a regular expression in the names of tensors that stay those of the base, or of the first model.

    Raises:
        ValueError: if a model cannot be read or does not fit the others, a parameter does not fit its method, or the
            result is not finite.

    Example:
        schedule = read_schedule(Path("mergekit.yml"))
        merge_recipe(schedule, Path("merged/"))
    """
    recipe, sources = schedule.recipe, sources_of(schedule.recipe)
    check_vocabularies(recipe, sources)
    first, *others = sources
    base = sources[first].open()
    renames = rename(base, [sources[model].open() for model in others])
    once = count_once(base, renames.experts)
    chosen = choose(once.base, once.experts, exclude)
    left = {*chosen.excluded, *chosen.buffers}
    rest = replace(once.base, state=only(once.base.state, [n for n in once.base.state if n not in left]))
    checkpoints = dict(zip(sources, (rest, *chosen.experts), strict=True))
    for checkpoint in chosen.experts:
        ours, theirs = outline(rest.state), outline(checkpoint.state)
        check_agree(NamedTensors(rest.source, ours), NamedTensors(checkpoint.source, theirs))
    shapes = outline(rest.state)
    sizes = {name: shapes[name].numel() for name in edited_names(shapes)}
    layer_map, found = _layers(schedule, list(sizes), blocks)
    models = _Models({model: c.state for model, c in checkpoints.items()}, layer_map, found)
    merge = _RecipeMerge.of(schedule, models, once.base.state, sizes)
    whole = outline(once.base.state)
    kept = [name for name in rest.state if name not in sizes]
    coverage = present(
        [
            Part.of("merged", {name: whole[name] for name in sizes}, named=False),
            Part.of("no weights, so they stay the base's", {name: whole[name] for name in [*kept, *chosen.buffers]}),
            Part.of("excluded, so they stay the base's", {name: whole[name] for name in chosen.excluded}),
            Part("only in other models, and left out", len(chosen.left_out), 0, tuple(chosen.left_out)),
        ]
    )
    text = shown(schedule, sources)
    metadata = {
        "lines_sweep.mergekit": text,
        "lines_sweep.models": json.dumps([c.fingerprint for c in (base, *renames.experts)]),
        "lines_sweep.coverage": json.dumps([part.to_json() for part in coverage]),
    }
    files, experts = locate(sources[first].model), [sources[m].adapter or sources[m].model for m in others]
    card = Card(sources[first].model, experts, text, coverage, "yaml")
    with new_output(output, files, merge.outline(), once.tied, metadata, card) as sink:
        merge.write(sink)
    notes = [*schedule.notes, *renames.notes, *(missing_files(files) if output.suffix != FILE else [])]
    return WrittenRecipe(found, coverage, notes)


def _layers(schedule: Schedule, names: Sequence[str], blocks: str | None) -> tuple[LayerMap, str]:
    """Find the layers of the tensors, if the recipe asks for them.

    Raises:
        ValueError: if they are not found, or a list of values would mean several stacks of layers.
    """
    if not schedule.needs_layers:
        return LayerMap({}, 0), ""
    layers, found = find_blocks(names, blocks)
    schedule.check_layers(layers.num_blocks)
    outside = [name for name in names if name not in layers.blocks]
    if stacks := find_stacks(outside):
        setting = schedule.by_layer
        raise schedule.recipe.error(
            setting.at if setting else ("slices",),
            f"the model has other layers besides these {layers.num_blocks}, such as {next(iter(stacks[0].names))}: "
            "values by layer are available for models with one stack of layers",
        )
    return layers, f"{found}: {layers.num_blocks} layers"


@dataclass(frozen=True, slots=True)
class _RecipeMerge:
    """A merge whose tensors are computed while they are written.

    Attributes:
        base: the first model; tensors without a step are copied.
        states: of all models.
        steps: how each tensor is merged.
        types: of the merged tensors.
    """

    base: Mapping[str, Tensor]
    states: Mapping[str, Mapping[str, Tensor]]
    steps: Mapping[str, Step]
    types: Mapping[str, torch.dtype]

    @classmethod
    def of(
        cls, schedule: Schedule, models: _Models, base: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> "_RecipeMerge":
        """Check all steps."""
        blocks, count = models.layers.blocks, models.layers.num_blocks
        steps = {name: schedule.step(TensorPlace(name, size, blocks.get(name), count)) for name, size in sizes.items()}
        config, outlines = schedule.recipe.config, {model: outline(state) for model, state in models.states.items()}
        named = config.out_dtype or config.dtype
        given: torch.dtype | None = getattr(torch, named) if named else None
        types = {name: given or _widest(step, outlines, name) for name, step in steps.items()}
        return cls(base, models.states, steps, types)

    def outline(self) -> dict[str, Tensor]:
        """Return tensors without values, of the types and shapes of the result."""
        return {
            name: torch.empty(like.shape, dtype=self.types.get(name, like.dtype), device="meta")
            for name, like in outline(self.base).items()
        }

    def write(self, sink: Sink) -> None:
        """Compute tensor after tensor, and give each to `sink`.

        Raises:
            ValueError: if one is not finite.
        """
        for name in self.base:
            step = self.steps.get(name)
            if step is None:
                sink.write(name, 0, self.base[name])
            else:
                sink.write(name, 0, _cast(name, compute(step, self.states, name), self.types[name]))


def compute(step: Step, states: Mapping[str, Mapping[str, Tensor]], name: str) -> Tensor:
    """Merge one tensor in float32.

    Args:
        step: how.
        states: model -> its tensors by name.
        name: of the tensor.
    """
    shape = states[step.experts[0]][name].shape
    base = torch.zeros(()).expand(shape) if step.base is None else states[step.base][name].float()
    theta0 = {name: base}
    deltas: list[Mapping[str, Tensor]] = [Difference(theta0, states[model]) for model in step.experts]
    places = range(len(deltas))
    if step.sparse:
        experts = Experts(deltas, theta0)
        one_hot = [tuple(int(i == place) for i in places) for place in places]
        deltas = [_call(call, experts, weights) for call, weights in zip(step.sparse, one_hot, strict=True)]
    return base + _call(step.combination, Experts(deltas, theta0), step.weights)[name] * step.factor


def _call(call: Call, experts: Experts, weights: Sequence[float]) -> Mapping[str, Tensor]:
    return METHODS[call.method].combine(experts, weights, call.resolved())


def _widest(step: Step, states: Mapping[str, Mapping[str, Tensor]], name: str) -> torch.dtype:
    types = [states[model][name].dtype for model in (step.base, *step.experts) if model is not None]
    return reduce(torch.promote_types, types)


def _cast(name: str, theta: Tensor, to: torch.dtype) -> Tensor:
    cast = theta.to(to)
    if not is_finite(cast):
        raise ValueError(f"{name}: NaN or infinite after the merge in {to}")
    return cast


def shown(schedule: Schedule, sources: Mapping[str, ModelSource]) -> str:
    """Return the recipe as YAML for other machines: models of the hub by name, and folders without their place."""

    def public(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: public(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [public(part) for part in value]
        source = sources.get(value) if isinstance(value, str) else None
        return value if source is None else source.public

    content = schedule.recipe.config.model_dump(exclude_none=True, exclude_defaults=True)
    return yaml.safe_dump(public(content), sort_keys=False, default_flow_style=None)
