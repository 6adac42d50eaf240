"""The memory of a run's worker, whether it fits on a machine, and what would."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from pipeline.loading.experts import has_only_sums
from pipeline.loading.missing import check_present
from pipeline.loading.model import Report, precision_of
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.low_rank import LowRank, LowRankDelta
from pipeline.merging.resident_low_rank import can_stay_low_rank
from pipeline.plan.plan import Plan
from pipeline.run.forecast import proposed
from pipeline.sizing.machine import Machine, program_bytes
from pipeline.sizing.memory import Load, Part, peak, worker_parts
from pipeline.sizing.model import ExpertSize, ModelSize, measure_model
from pipeline.sizing.samples import Samples, measure_samples
from pipeline.sizing.work import combined_vectors
from tasks.base import Backbone, KeepsOutputs, KeepsStart
from tasks.files.shared_memory import IS_AVAILABLE
from tasks.plugins import load_plugins

#: Rank of the adapters that are proposed in place of whole models.
_RANK = 16
#: The least part of a batch that is proposed.
_LEAST_BATCH = 1 / 16
_FLOAT32 = 4


@dataclass(frozen=True)
class Estimate:
    """The memory that a run needs.

    Attributes:
        model: sizes of base and experts.
        samples: what there is to score.
        load: what a worker's memory depends on besides.
        on_device: whether workers have a GPU.
        program: bytes of Python and libraries in each worker.
        generated: whether the run scores completions.
    """

    model: ModelSize
    samples: Samples
    load: Load
    on_device: bool
    program: int
    generated: bool = False

    @property
    def parts(self) -> list[Part]:
        """All parts of a worker's memory; on a CPU all of them are in the host's.

        There an expert's file is gone before the flat copy of its task vector, which is as large, is made.
        """
        parts = [*worker_parts(self.model, self.load), Part("Python and libraries", self.program, host=True)]
        return parts if self.on_device else [replace(part, host=True) for part in parts if part.phase != "opening"]

    def needed(self, host: bool) -> int:
        """Return the most bytes that a worker needs at once, of the host or of its device."""
        return peak([part for part in self.parts if part.host == host])

    def host_memory(self, workers: int) -> int:
        """Return the most bytes of the host that as many workers on one machine need at once."""
        once = 0 if self.on_device or not IS_AVAILABLE else sum(part.size for part in self.parts if part.shared)
        return workers * (self.needed(host=True) - once) + once


#: Changes an estimate as a user may change the spec.
_Change = Callable[[Estimate], Estimate]


def estimate(plan: Plan, machine: Machine, report: Report) -> Estimate:
    """Compute the memory of a run's worker from headers of checkpoints and from its data; no weights are read.

    Raises:
        ValueError: if a checkpoint or a task's data is missing or wrong; the field is named.
    """
    spec = plan.spec
    load_plugins(spec.plugins)
    sources = SpecSources(spec, spec.experts)
    sources.fetch_urls(report)
    check_present(spec, sources)
    report("reading headers", 0, 1)
    model = measure_model(spec, sources)
    device_type = machine.device_type(spec.resources)
    samples = measure_samples(spec, model, device_type, report)
    deltas = [e.delta for e in model.experts.values() if e.delta is not None]
    generated = spec.generation is not None
    sums = has_only_sums(spec)
    low_rank = len(deltas) == len(model.experts)
    adapted = generated and sums and low_rank and can_stay_low_rank(model.backbone.module, deltas)
    load = Load(
        precision_of(spec.backbone).itemsize,
        adapted,
        combined_vectors(plan),
        samples.activations,
        samples.data,
        sums,
        _outputs(model.backbone, samples, plan),
    )
    return Estimate(model, samples, load, device_type == "cuda", program_bytes(), generated)


def _outputs(backbone: Backbone, samples: Samples, plan: Plan) -> int:
    candidates = sum(map(proposed, plan.groups))
    if isinstance(backbone, KeepsStart):
        return backbone.kept_start(sum(map(sum, samples.counts.values())), candidates)
    return backbone.kept_bytes(samples.tokens, candidates) if isinstance(backbone, KeepsOutputs) else 0


def misfits(found: Estimate, plan: Plan, machine: Machine) -> list[str]:
    """Return what does not fit, each with what would."""
    resources, lines = plan.spec.resources, []
    room = machine.share(resources)
    if found.on_device and room is not None and found.needed(host=False) > room:
        lines.append(
            f"device memory: a worker needs {gib(found.needed(host=False))}, and may use {gib(room)} of its GPU; "
            + _proposals(found, lambda other: other.needed(host=False), room)
        )
    workers = machine.workers(resources)
    if machine.host is not None and (needed := found.host_memory(workers)) > machine.host:
        each = f"a worker needs {gib(found.needed(host=True))}" + f", {workers} at once {gib(needed)}" * (workers > 1)
        fewer = sum(found.host_memory(number) <= machine.host for number in range(1, workers))
        fit = f"resources.workers: {fewer}; " * (0 < fewer < workers)
        lines.append(
            f"host memory: {each}, and the machine has {gib(machine.host)}; "
            + (fit or _proposals(found, lambda other: other.needed(host=True), machine.host))
        )
    return [line.removesuffix("; ") for line in lines]


def _proposals(found: Estimate, needs: Callable[[Estimate], int], room: int) -> str:
    """List the single changes that suffice; if there is none, all of them together, and whether these do."""
    changes = list(_changes(found, needs, room))
    fitting = [f"{what} ({gib(size)})" for what, change in changes if (size := needs(change(found))) <= room]
    if fitting:
        return f"what would fit: {', or '.join(fitting)}"
    together = found
    for number, (_, change) in enumerate(changes, 1):
        together = change(together)
        named = " and ".join(what for what, _ in changes[:number])
        if (size := needs(together)) <= room:
            return f"no single change fits; together would: {named} ({gib(size)})"
    return f"use a larger machine: even with {named} it needs {gib(size)}" if changes else "use a larger machine"


def _changes(found: Estimate, needs: Callable[[Estimate], int], room: int) -> Iterator[tuple[str, _Change]]:
    """Yield what a user can change, and the estimate with it."""
    model, load = found.model, found.load
    if load.element == _FLOAT32:
        yield "backbone.precision: bfloat16", _halved
    if load.outputs:
        yield "backbone.options.encoder_memory: 0", _without_outputs
    if load.activations:
        share = max(_batch_share(found, needs, room), _LEAST_BATCH)
        yield f"{share:.2g} of the present batch_size", lambda other: _with_batch(other, share)
    if any(expert.delta is None for expert in model.experts.values()):
        yield f"LoRA adapters of rank {_RANK} as experts", _with_adapters
    counts = range(len(model.experts) - 1, 0, -1)
    fewer = next((n for n in counts if needs(_first_experts(found, n)) <= room), 1)
    if len(model.experts) > 1:
        yield f"{fewer} of {len(model.experts)} experts in a run", lambda other: _first_experts(other, fewer)


def _halved(found: Estimate) -> Estimate:
    return replace(found, load=replace(found.load, element=2, activations=(found.load.activations or 0) // 2))


def _without_outputs(found: Estimate) -> Estimate:
    return replace(found, load=replace(found.load, outputs=0))


def _with_batch(found: Estimate, share: float) -> Estimate:
    return replace(found, load=replace(found.load, activations=int((found.load.activations or 0) * share)))


def _with_adapters(found: Estimate) -> Estimate:
    experts = {name: e if e.delta else _adapter(found.model) for name, e in found.model.experts.items()}
    load = replace(found.load, adapted=found.generated and found.load.sums)
    return replace(found, model=replace(found.model, experts=experts), load=load)


def _first_experts(found: Estimate, count: int) -> Estimate:
    experts = dict(list(found.model.experts.items())[:count])
    return replace(found, model=replace(found.model, experts=experts))


def _batch_share(found: Estimate, needs: Callable[[Estimate], int], room: int) -> float:
    """Return the part of the activations for which there is room, between 0 and 1/2."""
    activations = found.load.activations or 0
    rest = needs(replace(found, load=replace(found.load, activations=0)))
    return min(0.5, max(0.0, (room - rest) / activations))


def _adapter(model: ModelSize) -> ExpertSize:
    """Return the size of an adapter of every matrix in the blocks."""
    shapes = model.shapes
    blocks = [name for name in model.backbone.layer_map.blocks if len(shapes[name]) == 2]
    delta = LowRankDelta({name: _factors(*shapes[name]) for name in blocks}, shapes, "meta")
    return ExpertSize(4 * delta.numel, delta)


def _factors(rows: int, columns: int) -> LowRank:
    with torch.device("meta"):
        return LowRank(torch.empty(rows, _RANK), torch.empty(_RANK, columns))


def gib(size: int) -> str:
    """Return bytes as GiB, or MiB if they are few."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
