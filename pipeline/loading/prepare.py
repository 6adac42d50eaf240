"""Check every checkpoint and prepare every task, before any worker starts."""

from collections.abc import Mapping

import torch

from pipeline.loading.experts import load_experts, merge_methods
from pipeline.loading.identity import identify
from pipeline.loading.missing import check_present, fetch_urls
from pipeline.loading.model import LoadedModel, Report, load_model
from pipeline.loading.tasks import load_tasks
from pipeline.merging.edited_parameters import Edited
from pipeline.messages import Identity
from pipeline.spec.run import RunSpec
from tasks.base import Scored


def prepare(spec: RunSpec, device_type: str, report: Report) -> Identity:
    """Check every checkpoint and prepare every task before any worker starts.

    Args:
        spec: the run.
        device_type: "cpu" or "cuda": where workers will evaluate.
        report: told what is being done.

    Raises:
        ValueError: whatever is wrong with a checkpoint or a task.
    """
    fetch_urls([spec.base, *spec.experts.values()], report)
    report("looking for checkpoints and data", 0, 1)
    check_present(spec)
    report("reading base", 0, 1)
    model = load_model(spec, torch.device("cpu"))
    experts, edited = {}, None if spec.generation is None else Edited(model.backbone, merge_methods(spec))
    for expert in load_experts(spec, model):
        experts[expert.name] = expert.fingerprint
        if edited is not None:
            edited.add(expert.delta)
        report(f"checked {expert.name}", len(experts), len(spec.experts))
    tasks = _scored(spec, model, report)
    return identify(spec, model, experts, tasks, torch.device(device_type), edited)


def _scored(spec: RunSpec, model: LoadedModel, report: Report) -> Mapping[str, Scored]:
    if spec.generation is None:
        return load_tasks(spec, model, report)
    from pipeline.loading.rewards import (  # transformers: other runs need not wait for it
        as_policy,
        prompts_of,
        reward_tasks,
    )

    report("reading prompts and rewards", 0, 1)
    return reward_tasks(spec, prompts_of(spec, as_policy(model.backbone)))
