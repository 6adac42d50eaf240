"""Read the base and the experts of a spec, one expert after the other, and check each against the base."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TypeAlias

import torch
from torch import Tensor

from pipeline.checkpoints.checkpoint import fingerprint, read_checkpoint
from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.known_fingerprints import KnownFingerprints
from pipeline.checkpoints.lora import Adapter, adapter_fingerprint, read_adapter
from pipeline.loading.calibration import stored_statistics
from pipeline.loading.expert_checks import check_distance, check_policies
from pipeline.loading.model import LoadedModel, load_model
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.methods import METHODS
from pipeline.merging.task_vectors import NamedTensors, norm, task_vector
from pipeline.spec.run import RunSpec
from tasks.batch_norm import has_statistics
from tasks.lora import TakesAdapters
from tasks.plugins import load_plugins


def has_only_sums(spec: RunSpec) -> bool:
    """Whether every merge of a spec is a sum of shares, without a step after it: low-rank experts then stay so."""
    merges = [arm.merge for arm in spec.arms.values() if arm.merge and arm.merge.method]
    return all(METHODS[merge.method].shares is not None and not merge.then for merge in merges)


@dataclass(frozen=True)
class Expert:
    """A fine-tuned checkpoint, checked against the base.

    Attributes:
        name: its key in the spec.
        delta: its task vector, float32; that of a LoRA adapter is low-rank, and an entry becomes dense when it is read.
        fingerprint: of the tensors that are used, or of the adapter's factors.
        statistics: of batch normalisation, by the names of the module's buffers; those that the file has.
    """

    name: str
    delta: Mapping[str, Tensor]
    fingerprint: str
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


#: (name, files, what reads and checks the expert) -> the expert.
Keep: TypeAlias = Callable[[str, CheckpointFiles, Callable[[], Expert]], Expert]


def load_checkpoints(
    spec: RunSpec, device: torch.device, sources: SpecSources | None = None
) -> tuple[LoadedModel, Iterator[Expert]]:
    """Load the plug-ins and the base of a spec, and read its experts as they are iterated over.

    Args:
        spec: of the run.
        device: of the backbone.
        sources: of the spec, if they are located already.

    Raises:
        ValueError: as `load_model` and `load_experts`.

    Example:
        >>> model, experts = load_checkpoints(spec, torch.device("cpu"))
        >>> deltas = {expert.name: expert.delta for expert in experts}
    """
    load_plugins(spec.plugins)
    sources = sources or SpecSources(spec, spec.experts)
    model = load_model(spec.backbone, sources.base, device)
    return model, load_experts(sources, model)


def load_experts(sources: SpecSources, model: LoadedModel, keep: Keep | None = None) -> Iterator[Expert]:
    """Read and check one expert after the other: at most one is in memory, besides those that the caller keeps.

    Args:
        sources: of the experts.
        model: the base.
        keep: decides where an expert is kept; it need not read one that it has.

    Raises:
        ValueError: if one is not a checkpoint of the base's architecture, nor a LoRA adapter for it; the expert, the
            file and the first names are given.
    """
    check_policies(sources, model.backbone)
    base_norm = cache(lambda: norm(model.base.tensors.values()))

    def read(name: str, files: CheckpointFiles) -> Expert:
        try:
            expert = _read(name, files, model)
        except ValueError as error:
            raise ValueError(f"experts.{name}: {error}") from error
        check_distance(NamedTensors(f"experts.{name}: {files.label}", expert.delta), base_norm())
        return expert

    for name, files in sources.experts():
        yield keep(name, files, partial(read, name, files)) if keep else read(name, files)


def _read(name: str, files: CheckpointFiles, model: LoadedModel) -> Expert:
    """Read a checkpoint or a LoRA adapter, which has no statistics."""
    if files.adapter_config:
        factors = low_rank(read_adapter(files), model)
        return Expert(name, factors, adapter_fingerprint(factors))
    known = KnownFingerprints(files.weights)
    state = read_checkpoint(files, hashed=False).state  # what is used of it has a fingerprint below
    tensors = model.backbone.select(state, files.place)
    stored = {}
    if has_statistics(model.backbone.module):
        stored = stored_statistics(model.backbone.module, state, f"experts.{name}: {files.label}")
    delta = task_vector(model.base, NamedTensors(files.label, tensors))
    return Expert(name, delta, fingerprint(tensors | stored, known), stored)


def low_rank(adapter: Adapter, model: LoadedModel) -> LowRankDelta:
    """Return the task vector of an adapter over the model's parameters.

    Raises:
        ValueError: if the family takes no adapters, or the adapter does not fit the model.
    """
    if not isinstance(model.backbone, TakesAdapters):
        raise ValueError(f"{adapter.source}: a LoRA adapter, which the family {model.backbone.family} does not take")
    parts = model.backbone.weight_parts(adapter.factors, adapter.source)
    return adapter.task_vector(parts, {name: tensor.shape for name, tensor in model.base.tensors.items()})
