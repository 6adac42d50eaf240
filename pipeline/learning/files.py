"""Write the statistics of a spec's experts to files, by the tensor names of their checkpoints."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint, read_checkpoint
from pipeline.checkpoints.statistics import origin
from pipeline.checkpoints.writing import write_safetensors
from pipeline.console import progress_bar
from pipeline.learning.gatherer import Gatherer
from pipeline.loading.experts import load_checkpoints
from pipeline.loading.prepare import prepare
from pipeline.loading.spec_sources import SpecSources
from pipeline.loading.tasks import load_tasks
from pipeline.spec.run import RunSpec
from tasks.base import Backbone


def write_statistics(spec: RunSpec, kind: str, samples: int, folder: Path) -> Iterator[Path]:
    """Write one file for each expert, and yield its path. One expert is in memory at a time.

    Args:
        spec: base, experts and tasks.
        kind: "fisher" or "gram".
        samples: validation images of each expert's own task, at most.
        folder: created if missing.

    Raises:
        ValueError: if a checkpoint or a task does not match the spec, or a task has no labelled images.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar() as report:
        sources = SpecSources(spec, spec.experts)
        identity = prepare(spec, device.type, report, sources)
        model, experts = load_checkpoints(spec, device, sources)
        gatherer = Gatherer(spec, model.backbone, load_tasks(spec, model.backbone, report), identity)
        for expert in experts:
            progress = partial(report, f"{kind} of {expert.name}")
            kept = gatherer.statistic(kind, expert.name, model.base.tensors, expert.delta, samples, progress)
            path = folder / f"{expert.name}.safetensors"
            checkpoint = read_checkpoint(sources.expert(expert.name))
            tensors = _as_in(checkpoint, kind, load_file(kept.path), model.backbone)
            write_safetensors(path, tensors, origin(kind, checkpoint.fingerprint, samples))
            yield path


def _as_in(checkpoint: Checkpoint, kind: str, tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Rename tensors of the module to the names of a checkpoint, which `lines merge` uses, where both have the tensor.

    Fisher information gets an entry for every tensor of the checkpoint: 0, for equal shares, outside the tower.
    """
    state = checkpoint.state
    known = {id(tensor): name for name, tensor in state.items()}
    names = {name: known.get(id(t), name) for name, t in backbone.select(state, checkpoint.source).items()}
    found = {names[name]: tensor for name, tensor in tensors.items()}
    others = {n: t for n, t in state.items() if kind == "fisher" and n not in found and t.is_floating_point()}
    return {**found, **{name: torch.zeros_like(t, dtype=torch.float32) for name, t in others.items()}}
