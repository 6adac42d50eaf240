"""Read the experts of a spec, one after the other, and check each against the base."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from pipeline.checkpoints.checkpoint import fingerprint, read_checkpoint
from pipeline.checkpoints.lora import Adapter, adapter_fingerprint, read_adapter
from pipeline.checkpoints.sources import locate_adapter
from pipeline.loading.expert_checks import check_distance, check_vocabularies
from pipeline.loading.model import LoadedModel, file_of
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.task_vectors import NamedTensors, norm, task_vector
from pipeline.spec.run import RunSpec
from tasks.lora import TakesAdapters


def merge_methods(spec: RunSpec) -> tuple[str, ...]:
    """The merge methods that the spec's arms name."""
    return tuple(dict.fromkeys(arm.merge.method for arm in spec.arms.values() if arm.merge and arm.merge.method))


@dataclass(frozen=True)
class Expert:
    """A fine-tuned checkpoint, checked against the base.

    Attributes:
        name: as the spec has it.
        delta: its task vector, float32; of a LoRA adapter it is low-rank, and an entry is made dense when it is read.
        fingerprint: of the tensors that are used, or of the adapter's factors.
    """

    name: str
    delta: Mapping[str, Tensor]
    fingerprint: str


def load_experts(spec: RunSpec, model: LoadedModel) -> Iterator[Expert]:
    """Read and check one expert after the other, so that no more than one is in memory beside what the caller keeps.

    Raises:
        ValueError: not a checkpoint of the same architecture, or a LoRA adapter for it; the expert, the file and the
            first names are given.
    """
    check_vocabularies(spec, model.backbone)
    size = norm(model.base.tensors.values())
    for name, source in spec.experts.items():
        try:
            delta, mark = _expert(source, model)
        except ValueError as error:
            raise ValueError(f"experts.{name}: {error}") from error
        check_distance(NamedTensors(f"experts.{name}: {source}", delta), size)
        yield Expert(name, delta, mark)


def _expert(source: str, model: LoadedModel) -> tuple[Mapping[str, Tensor], str]:
    """Task vector and fingerprint of a checkpoint or of a LoRA adapter."""
    if adapter := locate_adapter(source):
        low_rank = _low_rank(read_adapter(source, adapter), model)
        return low_rank, adapter_fingerprint(low_rank)
    tensors = model.backbone.select(read_checkpoint(source).state, file_of(source))
    return task_vector(model.base, NamedTensors(source, tensors)), fingerprint(tensors)


def _low_rank(adapter: Adapter, model: LoadedModel) -> LowRankDelta:
    if not isinstance(model.backbone, TakesAdapters):
        raise ValueError(f"{adapter.source}: a LoRA adapter, which the family {model.backbone.family} does not take")
    parts = model.backbone.weight_parts(adapter.factors, adapter.source)
    return adapter.task_vector(parts, {name: tensor.shape for name, tensor in model.base.tensors.items()})
