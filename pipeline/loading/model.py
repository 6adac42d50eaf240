"""Build the backbone of a spec with the weights of its base."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import CheckpointFiles
from pipeline.merging.scaling import LayerSizes
from pipeline.merging.task_vectors import NamedTensors, layer_sizes
from pipeline.spec.sources import BackboneSpec
from tasks.base import Backbone
from tasks.registry import BACKBONES, BackboneFactory

#: (what is being done, steps done, steps in all)
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LoadedModel:
    """A backbone that holds theta0, and theta0 itself.

    Attributes:
        backbone: the model family, on its device.
        base: theta0 by the names of `backbone.module.named_parameters()`.
        fingerprint: of the base's checkpoint.
    """

    backbone: Backbone
    base: NamedTensors
    fingerprint: str

    @property
    def sizes(self) -> LayerSizes:
        """Numbers of edited parameters outside the blocks and in each block."""
        return layer_sizes(self.backbone.layer_map, dict(self.backbone.module.named_parameters()))


def load_model(spec: BackboneSpec, base: CheckpointFiles, device: torch.device) -> LoadedModel:
    """Build the backbone with the base's weights; plug-ins must be loaded.

    Raises:
        ValueError: if the family is unknown, or the base is not a checkpoint of the architecture; the file is named.
    """
    _builder(spec)  # an unknown family is an error before a large file is read
    try:
        checkpoint = read_checkpoint(base)
        backbone = build_backbone(spec, base, checkpoint.state, device)
        theta0 = backbone.select(checkpoint.state, base.place)
    except ValueError as error:
        raise ValueError(about_base(base.label, str(error))) from error
    return LoadedModel(backbone, NamedTensors(base.label, theta0), checkpoint.fingerprint)


def build_backbone(
    spec: BackboneSpec, base: CheckpointFiles, state: Mapping[str, Tensor], device: torch.device
) -> Backbone:
    """Build the backbone of a spec with the tensors of its base.

    Raises:
        ValueError: if the family is unknown, or the tensors do not fit the architecture; errors call them "base".
    """
    options = dict(spec.options)
    if base.source.kind == "tag":
        options["pretrained"] = base.source.name
    return _builder(spec)(spec.model, state, device, precision_of(spec), options)


def _builder(spec: BackboneSpec) -> BackboneFactory:
    try:
        return BACKBONES[spec.family]
    except ValueError as error:
        raise ValueError(f"backbone.family: {error}") from None


def precision_of(spec: BackboneSpec) -> torch.dtype:
    """Return the precision of the evaluated weights."""
    dtype = getattr(torch, spec.precision)
    assert isinstance(dtype, torch.dtype)
    return dtype


def about_base(source: str, text: str) -> str:
    """Name the file in an error: a family's loader calls its tensors "base", readers name it, options themselves."""
    if text.startswith("base: "):
        return f"base: {source}: {text.removeprefix('base: ')}"
    return text if text.startswith("backbone.") else f"base: {text}"
