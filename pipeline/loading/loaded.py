"""Everything that a run's worker holds, loaded and checked: by the worker, or by the preparation before it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from pipeline.loading.experts import Expert
from pipeline.loading.identity import identify
from pipeline.loading.model import LoadedModel
from pipeline.loading.shared_vectors import load_flat
from pipeline.loading.tasks import load_tasks
from pipeline.messages import Identity
from pipeline.spec.run import RunSpec
from tasks.base import Task

#: Brings the files that a spec names to this machine, and returns the spec with their paths here.
Fetch: TypeAlias = Callable[[RunSpec], RunSpec]


@dataclass(frozen=True)
class Loaded:
    """The content of a worker of one run, for one worker: this edits the model in place.

    Attributes:
        model: the base, on the worker's device.
        experts: in the order of the spec; dense task vectors are flat.
        tasks: by name.
        identity: everything that scores depend on.
    """

    model: LoadedModel
    experts: tuple[Expert, ...]
    tasks: Mapping[str, Task]
    identity: Identity


def load_run(spec: RunSpec, device: torch.device, fetch: Fetch | None = None) -> Loaded:
    """Load base, experts and tasks of a run without rewards; for `fetch` see `pipeline.workers.worker.Worker`.

    Raises:
        ValueError: if a checkpoint or a task is not as the spec declares it.
    """
    here = fetch(spec) if fetch else spec
    model, found = load_flat(here, device)
    experts = tuple(found)
    tasks = load_tasks(here, model.backbone, lambda what, done, total: None)
    fingerprints = {expert.name: expert.fingerprint for expert in experts}
    return Loaded(model, experts, tasks, identify(spec, model, fingerprints, tasks, device))
