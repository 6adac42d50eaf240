"""From a spec to what is in memory: backbone, checked experts, tasks; the same code in preparation and in workers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.sources import locate
from pipeline.merging.scaling import LayerSizes
from pipeline.merging.task_vectors import NamedTensors, layer_sizes
from pipeline.spec.sources import ModelSpec
from tasks.base import Backbone
from tasks.files.models import nearby
from tasks.registry import BACKBONES, load_plugins
from tasks.vision.clip.architectures import pretrained_source

#: (what is being done, steps done, steps in all)
Report = Callable[[str, int, int], None]
_PRETRAINED = "pretrained:"


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
        """Edited parameters outside the blocks and in each block."""
        return layer_sizes(self.backbone.layer_map, dict(self.backbone.module.named_parameters()))


def load_model(spec: ModelSpec, device: torch.device) -> LoadedModel:
    """Build the backbone with the base's weights.

    Raises:
        ValueError: the family is unknown, or the base is not a checkpoint of the architecture; the file is named.
    """
    load_plugins(spec.plugins)
    source, options = spec.base, dict(spec.backbone.options)
    if source.startswith(_PRETRAINED):
        options["pretrained"] = source.removeprefix(_PRETRAINED)
        source = pretrained_source(spec.backbone.model, options["pretrained"])
    try:
        build = BACKBONES[spec.backbone.family]
    except ValueError as error:
        raise ValueError(f"backbone.family: {error}") from None
    try:
        checkpoint = read_checkpoint(source)
        backbone = build(spec.backbone.model, checkpoint.state, device, dtype_of(spec), options)
        base = backbone.select(checkpoint.state, file_of(source))
    except ValueError as error:
        raise ValueError(_about_base(spec.base, str(error))) from error
    return LoadedModel(backbone, NamedTensors(spec.base, base), checkpoint.fingerprint)


def _about_base(source: str, text: str) -> str:
    """A family's loader is given tensors, and calls them "base"; readers name the file; options name themselves."""
    if text.startswith("base: "):
        return f"base: {source}: {text.removeprefix('base: ')}"
    return text if text.startswith("backbone.") else f"base: {text}"


def dtype_of(spec: ModelSpec) -> torch.dtype:
    """The precision of the evaluated weights."""
    dtype = getattr(torch, spec.backbone.precision)
    assert isinstance(dtype, torch.dtype)
    return dtype


def file_of(source: str) -> str:
    """The file itself where the source is a name for one: a config.json may lie beside it."""
    return str(locate(source)[0]) if source.startswith("hf:") else nearby(source)
