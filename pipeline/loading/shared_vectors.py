"""Base and task vectors as workers keep them: flat, and one copy for all workers that evaluate on a machine's CPU."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load, save

from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.known_fingerprints import stamps
from pipeline.loading.experts import Expert, load_experts
from pipeline.loading.model import LoadedModel, load_model
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.flat import Arena, Flat
from pipeline.merging.task_vectors import NamedTensors
from pipeline.spec.run import RunSpec
from tasks.files.cache import digest
from tasks.files.shared_memory import shared_memory
from tasks.plugins import imported, load_plugins

_FORMAT = "1"
_FLOAT32 = 4
_FINGERPRINT = 16

logger = logging.getLogger(__name__)


def load_flat(
    spec: RunSpec, device: torch.device, sources: SpecSources | None = None
) -> tuple[LoadedModel, Iterator[Expert]]:
    """Load as `load_checkpoints`, with the task vectors on the device, those of whole models flat.

    On the CPU the base is flat too. If other workers of the run may evaluate on this machine's CPU, they share both;
    nobody may write to them. Nothing is flat if all experts are adapters, which are small, and may need no flat base.

    Raises:
        ValueError: as `load_checkpoints`.
    """
    load_plugins(spec.plugins)
    sources = sources or SpecSources(spec, spec.experts)
    model = load_model(spec.backbone, sources.base, device)
    if all(files.adapter_config for _, files in sources.experts()):
        return model, load_experts(sources, model)
    shapes = {name: p.shape for name, p in model.backbone.module.named_parameters()}
    arena = Arena.plan(shapes, model.backbone.layer_map)
    shares = device.type == "cpu" and spec.resources.pool == "ray" and spec.resources.workers != 1
    shared = _Shared(spec, sources, arena, model) if shares else None
    if device.type == "cpu":  # elsewhere task vectors are computed on the CPU, before they are flat on the device
        base = shared.base(model) if shared else arena.flat(model.base.tensors, device)
        model = replace(model, base=NamedTensors(model.base.source, base))
    if shared:
        return model, load_experts(sources, model, shared.expert)
    experts = load_experts(sources, model)
    return model, (replace(expert, delta=arena.hold(expert.delta, device)) for expert in experts)


class _Shared:
    """The flat tensors of one base and its experts in memory that this machine's workers share.

    The key of each is everything that it depends on. The base, which every worker has read, counts by its fingerprint
    too. An expert's file counts by its stamps: it is read, and compared with what is known of it, by the worker that
    makes the flat tensor; the others do not read it.
    """

    def __init__(self, spec: RunSpec, sources: SpecSources, arena: Arena, model: LoadedModel) -> None:
        self._arena = arena
        self._common = [
            _FORMAT,
            torch.__version__,
            metadata.version("lines-sweep"),
            repr(spec.backbone),
            repr(arena.places),
            model.fingerprint,
            *_stamps_of(sources.base),
            *stamps([Path(file) for name in spec.plugins if (file := imported(name).__file__)]),
        ]
        self._warned = False

    def base(self, model: LoadedModel) -> Flat:
        def make() -> Expert:
            return Expert("base", self._arena.flat(model.base.tensors, torch.device("cpu")), model.fingerprint)

        flat = self._shared(["base"], make).delta
        assert isinstance(flat, Flat)
        return flat

    def expert(self, name: str, files: CheckpointFiles, read: Callable[[], Expert]) -> Expert:
        """Return an expert that another worker has read, or that is read now.

        Neither an adapter's factors are shared, nor what files without stamps hold.
        """
        if files.adapter_config:
            return read()

        def make() -> Expert:
            expert = read()
            return replace(expert, delta=self._arena.flat(expert.delta, torch.device("cpu")))

        found = _stamps_of(files)
        return replace(self._shared(["expert", *found], make), name=name) if found else make()

    def _shared(self, parts: Sequence[str], make: Callable[[], Expert]) -> Expert:
        made: list[Expert] = []

        def create() -> list[memoryview]:
            made.append(make())
            return _content(made[0])

        try:
            mapped = shared_memory(digest([*self._common, *parts]), create)
        except OSError as error:
            if not self._warned:
                logger.warning("each worker of this machine keeps base and task vectors of its own: %s", error)
            self._warned = True
            return made[0] if made else make()
        size = self._arena.size
        whole = torch.frombuffer(mapped, dtype=torch.float32, count=size)
        rest = bytes(memoryview(mapped)[_FLOAT32 * size :])
        flat = Flat(whole, self._arena.views(whole))
        return Expert("", flat, rest[:_FINGERPRINT].decode(), load(rest[_FINGERPRINT:]))


def _content(expert: Expert) -> list[memoryview]:
    """Return the flat vector, the fingerprint and the statistics."""
    assert isinstance(expert.delta, Flat) and len(expert.fingerprint) == _FINGERPRINT
    rest = expert.fingerprint.encode() + save(dict(expert.statistics))
    return [expert.delta.whole.numpy().data, memoryview(rest)]


def _stamps_of(files: CheckpointFiles) -> list[str]:
    """Return the stamps of the weights, and of what a family's `select` may read beside them; [] if one is gone.

    A link without its file, as in a snapshot of the hub's cache that was pruned, can be read by nobody.
    """
    beside = sorted(files.weights[0].parent.glob("*.json")) if files.folder else []
    return stamps([*files.weights, *filter(Path.exists, beside)])
