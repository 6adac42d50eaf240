"""The memory of a worker, part by part, as `pipeline.merging.resident` and `resident_low_rank` hold it."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from pipeline.merging.flat import Arena
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.resident import COMBINED_KEPT
from pipeline.merging.resident_low_rank import COMBINED_KEPT as COMBINED_LOW_RANK
from pipeline.sizing.model import ModelSize

#: always: from loading on; opening: until all checkpoints are read; reading: until they are on the device; scoring:
#: only afterwards.
Phase = Literal["always", "opening", "reading", "scoring"]
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a worker keeps in memory.

    Attributes:
        what: for users.
        size: bytes.
        phase: when it is there.
        host: whether it is in the host's memory, also if the worker has a GPU.
        shared: whether the workers that evaluate on a machine's CPU have one copy for all.
    """

    what: str
    size: int
    phase: Phase = "always"
    host: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker's memory depends on besides the checkpoints.

    Attributes:
        element: bytes of an element of the evaluated weights.
        adapted: whether low-rank policies stay apart from the weights (`AdaptedModel`).
        combined: number of combined task vectors that the run needs, other than one expert's own.
        activations: bytes of a forward pass; None if not known.
        data: bytes of the decoded samples.
        sums: whether all merges are sums of shares, which keep low-rank task vectors low-rank.
        outputs: bytes of an encoder's outputs that are kept for later candidates.
    """

    element: int
    adapted: bool
    combined: int
    activations: int | None
    data: int = 0
    sums: bool = False
    outputs: int = 0


def worker_parts(model: ModelSize, load: Load) -> list[Part]:
    """Return all parts of a worker's memory; the parts without `host` are on its device."""
    parts = [*(_adapted if load.adapted else _resident)(model, load)]
    parts += [
        Part("buffers of the module", model.buffers),
        Part("frozen parts of the model", model.frozen, host=True),
        Part("activations of a batch", load.activations or 0, "scoring"),
        Part("decoded data", load.data, "scoring"),
        Part("kept outputs of the encoder", load.outputs, "scoring"),
        Part("the base's file, while it is read", model.base, "reading", host=True),
        Part("task vectors, while they are read", _read_vectors(model), "reading", host=True),
        Part("the largest expert's file", max(e.stored for e in model.experts.values()), "opening", host=True),
    ]
    return [part for part in parts if part.size]


def peak(parts: list[Part]) -> int:
    """Return the most bytes of these parts at once."""
    return sum(p.size for p in parts if p.phase == "always") + max(
        sum(p.size for p in parts if p.phase in phases) for phases in (("opening", "reading"), ("scoring",))
    )


def _resident(model: ModelSize, load: Load) -> Iterator[Part]:
    """Yield the parts of a `ResidentModel`."""
    shapes = model.shapes
    arena = Arena.plan(shapes, model.backbone.layer_map)
    largest = max(map(prod, shapes.values()))
    low = [e.delta for e in model.experts.values() if e.delta is not None]
    dense = len(model.experts) - len(low)
    yield Part("base, float32", _FLOAT32 * arena.size, shared=dense > 0)
    yield Part("evaluated weights", load.element * arena.size)
    yield Part("weights as they were built", load.element * _count(model), "reading")
    yield Part(f"task vectors of {dense} whole models", _FLOAT32 * arena.size * dense, shared=True)
    yield Part(f"factors of {len(low)} adapters", _FLOAT32 * _numel(low))
    kept = min(load.combined, COMBINED_KEPT)
    if load.sums and not dense and _numel(low) <= _count(model):
        yield Part(f"combined factors ({kept} kept)", _FLOAT32 * _numel(low) * kept, "scoring")
        if load.element != _FLOAT32:
            product = max(prod(factor.shape) for delta in low for factor in delta.factors.values())
            yield Part("a product of factors, while it is rebuilt", _FLOAT32 * product, "scoring")
        return
    yield Part(f"combined task vectors ({kept} kept)", _FLOAT32 * arena.size * kept, "scoring")
    if kept:
        work = _count(model) + (len(model.experts) + 1) * largest
        yield Part("a combined task vector while it is made", _FLOAT32 * work, "scoring")
    if load.element != _FLOAT32:
        scratch = max(group.stop - group.start for group in arena.groups)
        yield Part("a block in float32, while it is rebuilt", _FLOAT32 * scratch, "scoring")


def _adapted(model: ModelSize, load: Load) -> Iterator[Part]:
    """Yield the parts of an `AdaptedModel`: the weights stay the base's, and candidates are factors."""
    low = [e.delta for e in model.experts.values() if e.delta is not None]
    kept = min(load.combined, COMBINED_LOW_RANK)
    yield Part("evaluated weights", load.element * _count(model))
    yield Part(f"factors of {len(low)} adapters", _FLOAT32 * _numel(low))
    yield Part(f"combined factors ({kept} kept)", _FLOAT32 * _numel(low) * kept, "scoring")
    yield Part("factors of the candidate", load.element * _numel(low), "scoring")
    yield Part("factors of the candidate, while they are scaled", _FLOAT32 * _numel(low), "scoring")


def _read_vectors(model: ModelSize) -> int:
    """Return the bytes of all factors, and of one dense task vector: as it is read, and flat before it is shared."""
    low = [e.delta for e in model.experts.values() if e.delta is not None]
    return _FLOAT32 * (_numel(low) + 2 * _count(model) * (len(low) < len(model.experts)))


def _count(model: ModelSize) -> int:
    return sum(map(prod, model.shapes.values()))


def _numel(deltas: list[LowRankDelta]) -> int:
    return sum(delta.numel for delta in deltas)
