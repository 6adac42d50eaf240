"""Check and load the inputs of a fine-tuning; all of them once before any model is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.loading.missing import check_present
from pipeline.loading.model import LoadedModel, Report, load_model
from pipeline.loading.spec_sources import SpecSources
from pipeline.train.finetune.batches import EpochBatches
from pipeline.train.finetune.selection import check_method
from pipeline.train.finetune.spec import FinetuneRun, FinetuneSpec, runs_of
from pipeline.train.job import TrainingJob
from tasks.base import Backbone, Task, TaskRequest
from tasks.loading import load_task
from tasks.lora import ChecksPolicies
from tasks.plugins import load_plugins
from tasks.training import TextsToLearn
from tasks.vision.classification import ZeroShotClassification
from tasks.vision.decoded import Progress


@dataclass(frozen=True)
class FinetuneJob(TrainingJob):
    """One model to train.

    Attributes:
        spec: the spec of the command.
        run: which of its models.
    """

    spec: FinetuneSpec
    run: FinetuneRun


def prepare(spec: FinetuneSpec, out: Path, device_type: str, report: Report) -> list[FinetuneJob]:
    """Check the base, every task and every rank, decode images that the cache lacks, and return all jobs.

    Raises:
        ValueError: if an input is wrong; the field or file is named.
    """
    sources = SpecSources(spec)
    sources.fetch_urls(report)
    report("looking for base and data", 0, 1)
    check_present(spec, sources)
    report("reading base", 0, 1)
    model = load_base(spec, torch.device("cpu"), sources)
    runs = runs_of(spec)
    tasks = {}
    for run in runs:

        def progress(done: int, total: int, name: str = run.task) -> None:
            report(f"preparing {name}", done, total)

        if (key := (run.task, run.head_seed)) not in tasks:
            tasks[key] = load_training_task(spec, run.task, model.backbone, run.head_seed, progress)
    jobs = []
    for run in runs:
        check_method(run, model.backbone)
        task = tasks[run.task, run.head_seed]
        total = EpochBatches(task.num_samples("train"), run.settings).total
        identity = identify(spec, run, model, task)
        jobs.append(FinetuneJob(run.name, out / run.name, identity, total, device_type, spec, run))
    return jobs


def load_base(spec: FinetuneSpec, device: torch.device, sources: SpecSources | None = None) -> LoadedModel:
    """Load the base in float32, whatever the precision: bfloat16 is reached by autocast.

    Raises:
        ValueError: as `pipeline.loading.model.load_model`.
    """
    load_plugins(spec.plugins)
    base = (sources or SpecSources(spec)).base
    return load_model(spec.backbone.model_copy(update={"precision": "float32"}), base, device)


def load_training_task(
    spec: FinetuneSpec, name: str, backbone: Backbone, head_seed: int | None = None, progress: Progress | None = None
) -> ZeroShotClassification | TextsToLearn:
    """Load the task `name` of the spec, with its training split.

    Args:
        spec: of the fine-tuning.
        name: of the task.
        backbone: which holds the base.
        head_seed: of a head that is trained too.
        progress: called while images are decoded.

    Raises:
        ValueError: if the source is unknown, has no training or validation samples, or cannot be trained on.
    """
    entry = spec.tasks[name]
    limits: Mapping[str, int | None] = {**spec.limits, **entry.limits}  # type: ignore[dict-item]
    request = TaskRequest(name, entry.source, limits, entry.options, train=True, head_seed=head_seed)
    try:
        task = load_task(request, backbone, progress)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(f"tasks.{name}") else f"tasks.{name}: {text}") from error
    if not isinstance(task, ZeroShotClassification | TextsToLearn) or not task.num_samples("train"):
        raise ValueError(f"tasks.{name}: {entry.source}: has no training samples; fine-tuning needs a source with them")
    if not task.num_samples("val"):
        raise ValueError(f"tasks.{name}: {entry.source}: has no val samples, which measure progress; add some")
    return task


def identify(spec: FinetuneSpec, run: FinetuneRun, model: LoadedModel, task: Task) -> dict[str, Any]:
    """Return what decides the trained weights, as JSON: the same identity gives the same model."""
    tokenizer = {"inputs": model.backbone.inputs} if isinstance(model.backbone, ChecksPolicies) else {}
    return {
        **tokenizer,
        "backbone": spec.backbone.model_dump(mode="json"),
        "base": model.fingerprint,
        "task": task.fingerprint,
        **run.to_json(),
        "save_dtype": spec.save_dtype,
    }
