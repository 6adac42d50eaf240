"""The base and the experts of a spec under the names of the model's parameters, read from the disk piece by piece."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.checkpoints.checkpoint import plain_numbers
from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.lazy import Renamed, StoredTensors
from pipeline.checkpoints.lora import read_adapter
from pipeline.checkpoints.readers import read_tensors
from pipeline.loading.experts import low_rank
from pipeline.loading.model import LoadedModel, about_base, build_backbone
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.task_vectors import NamedTensors, check_agree
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, LayerMap
from tasks.plugins import load_plugins


@dataclass(frozen=True, slots=True)
class OpenedExperts:
    """The base and its experts, of which little is in memory.

    Attributes:
        layer_map: over the names of parameters.
        shapes: parameter name -> shape; tied ones count once.
        base: the weights of the base.
        experts: name -> the expert's weights, or the low-rank task vector of a LoRA adapter.
    """

    layer_map: LayerMap
    shapes: Mapping[str, torch.Size]
    base: Mapping[str, Tensor]
    experts: Mapping[str, Mapping[str, Tensor]]


def open_experts(spec: RunSpec, sources: SpecSources) -> OpenedExperts:
    """Open the checkpoints of a spec: the architecture is built without weights, and tensors stay on the disk.

    Raises:
        ValueError: if a checkpoint is not one of the architecture, nor a LoRA adapter for it; the field is named.
    """
    load_plugins(spec.plugins)
    files = sources.base
    try:
        state = _mapped(files)
        stored = spec.backbone.model_copy(update={"precision": _precision(state)})
        backbone = build_backbone(stored, files, state, torch.device("meta"))
        base = NamedTensors(files.label, _selected(files, state, backbone.select))
    except ValueError as error:
        raise ValueError(about_base(files.label, str(error))) from error
    del state
    shapes = {name: p.shape for name, p in backbone.module.named_parameters()}
    experts = {}
    for name, files in sources.experts():
        try:
            experts[name] = _expert(files, backbone, NamedTensors(base.source, _like(shapes)))
        except ValueError as error:
            raise ValueError(f"experts.{name}: {error}") from error
    return OpenedExperts(backbone.layer_map, shapes, base.tensors, experts)


def _expert(files: CheckpointFiles, backbone: Backbone, base: NamedTensors) -> Mapping[str, Tensor]:
    if files.adapter_config:
        return low_rank(read_adapter(files), LoadedModel(backbone, base, ""))

    def select(state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
        found = backbone.select(state, place)
        check_agree(base, NamedTensors(files.label, found))
        return found

    return _selected(files, _mapped(files), select)


def _like(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _precision(state: Mapping[str, Tensor]) -> str:
    """Return the precision of most of a file's tensors: in another one, a model that is built would be a copy."""
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    return max(("float32", "bfloat16", "float16"), key=lambda name: counts[name])


def _mapped(files: CheckpointFiles) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's files, mapped: their numbers are read from the disk when they are used."""
    state = {name: t for path in files.weights for name, t in read_tensors(path, mapped=True).items()}
    return plain_numbers(files.label, state, files.weights[0].parent)


def _selected(
    files: CheckpointFiles,
    state: Mapping[str, Tensor],
    select: Callable[[Mapping[str, Tensor], str], dict[str, Tensor]],
) -> Mapping[str, Tensor]:
    """Return the parameters' tensors; what a family takes from .safetensors files as it is, is read by pieces.

    The pages of a mapped file count as memory of the process as long as it is open.
    """
    found = select(state, files.place)
    names = {id(tensor): name for name, tensor in state.items()}
    stored = {new: names[id(tensor)] for new, tensor in found.items() if id(tensor) in names}
    if len(stored) < len(found) or any(path.suffix != ".safetensors" for path in files.weights):
        return found
    return Renamed(StoredTensors(files.weights), stored)
