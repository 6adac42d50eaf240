"""The sizes of base and experts from the headers of their files, and the architecture without weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pipeline.checkpoints.checkpoint import whole
from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.lazy import StoredTensors
from pipeline.checkpoints.lora import adapter_of
from pipeline.checkpoints.quantised import numbers
from pipeline.checkpoints.readers import read_tensors, safetensors_errors
from pipeline.loading.model import about_base, build_backbone, precision_of
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.low_rank import LowRankDelta
from pipeline.spec.run import RunSpec
from tasks.base import Backbone
from tasks.lora import TakesAdapters


@dataclass(frozen=True, slots=True)
class ExpertSize:
    """The size of an expert.

    Attributes:
        stored: bytes of the tensors of its files.
        delta: its low-rank task vector, without values; None if it is a whole model.
    """

    stored: int
    delta: LowRankDelta | None = None


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a run's checkpoints.

    Attributes:
        backbone: the model on the meta device, without values.
        base: bytes of the tensors of the base's files.
        frozen: bytes of the tensors that the backbone keeps on the CPU besides its module, such as a text tower.
        experts: by name.
        build: makes the backbone on a device, all weights of a tensor being its first element.
    """

    backbone: Backbone
    base: int
    frozen: int
    experts: Mapping[str, ExpertSize]
    build: Callable[[torch.device], Backbone]

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shapes of the edited parameters, tied ones once."""
        return {name: p.shape for name, p in self.backbone.module.named_parameters()}

    @property
    def buffers(self) -> int:
        """Bytes of the module's tensors that are not edited."""
        return sum(map(_nbytes, self.backbone.module.buffers()))


def measure_model(spec: RunSpec, sources: SpecSources) -> ModelSize:
    """Read the headers of base and experts, and build the architecture without weights; plug-ins must be loaded.

    Raises:
        ValueError: if a file is missing or unreadable, or does not fit the architecture; the field is named.
    """
    files, dtype = sources.base, precision_of(spec.backbone)
    try:
        base = outline(whole(files))
        # One element stands for all of a tensor: those of tied weights are equal, as the tensors are. In the evaluated
        # precision, transformers copies none of them.
        elements = {
            name: element.to(dtype if element.is_floating_point() else element.dtype).expand(base[name].shape)
            for name, element in _first_elements(files).items()
        }
        build = partial(build_backbone, spec.backbone, files, elements)
        backbone = build(torch.device("meta"))
    except ValueError as error:
        raise ValueError(about_base(files.label, str(error))) from error
    experts = {}
    for name, files in sources.experts():
        try:
            experts[name] = _expert(files, backbone)
        except ValueError as error:
            raise ValueError(f"experts.{name}: {error}") from error
    of_file = {elements[name].data_ptr(): _nbytes(tensor) for name, tensor in base.items()}
    frozen = sum(of_file.get(tensor.data_ptr(), _nbytes(tensor)) for tensor in _tensors(backbone))
    return ModelSize(backbone, _total(base), frozen, experts, build)


def outline(files: CheckpointFiles) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint's files without values; of .safetensors files only the headers are read.

    Raises:
        ValueError: if a file is not readable.
    """
    if all(file.suffix == ".safetensors" for file in files.weights):
        return StoredTensors(files.weights).outline()
    state = {name: t for file in files.weights for name, t in read_tensors(file, mapped=True).items()}
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}


def _first_elements(files: CheckpointFiles) -> dict[str, Tensor]:
    """Return the first element of each tensor, of shape (); 0 if it has none."""
    found: dict[str, Tensor] = {}
    for path in files.weights:
        if path.suffix != ".safetensors":
            found |= {name: _first(tensor) for name, tensor in read_tensors(path, mapped=True).items()}
            continue
        with safetensors_errors(path), safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                found[name] = _first(part[(slice(0, 1),) * len(part.get_shape())])
    return found


def _first(tensor: Tensor) -> Tensor:
    return numbers(tensor.reshape(-1)[0].clone() if tensor.numel() else tensor.new_zeros(()))


def _expert(files: CheckpointFiles, backbone: Backbone) -> ExpertSize:
    state = outline(files)
    if not files.adapter_config:
        return ExpertSize(_total(state))
    if not isinstance(backbone, TakesAdapters):
        raise ValueError(f"{files.label}: a LoRA adapter, which the family {backbone.family} does not take")
    adapter = adapter_of(files, state)
    parts = backbone.weight_parts(adapter.factors, adapter.source)
    shapes = {name: p.shape for name, p in backbone.module.named_parameters()}
    return ExpertSize(_total(state), adapter.task_vector(parts, shapes))


def _total(state: Mapping[str, Tensor]) -> int:
    return sum(map(_nbytes, state.values()))


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(owner: object) -> Iterator[Tensor]:
    """Yield the tensors with values that an object reaches by its attributes, mappings and lists, each once."""
    seen: set[int] = set()
    left: list[Any] = [owner]
    while left:
        found = left.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, Tensor):
            if not found.is_meta:
                yield found
        elif isinstance(found, nn.Module):
            left += [*found.parameters(), *found.buffers()]
        elif isinstance(found, Mapping):
            left += found.values()
        elif isinstance(found, list | tuple):
            left += found
        elif hasattr(found, "__dict__") and not isinstance(found, type):
            left += vars(found).values()
