"""Check every checkpoint and prepare every task, before any worker starts."""

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import cast

import torch

from pipeline.loading.experts import Expert, has_only_sums, load_checkpoints
from pipeline.loading.identity import identify
from pipeline.loading.loaded import Loaded
from pipeline.loading.missing import find_all
from pipeline.loading.model import LoadedModel, Report
from pipeline.loading.shared_vectors import load_flat
from pipeline.loading.spec_sources import SpecSources
from pipeline.loading.tasks import load_tasks
from pipeline.merging.components import Components
from pipeline.merging.edited_parameters import EditedParameters
from pipeline.merging.methods import METHODS
from pipeline.merging.scaling import check_groups
from pipeline.messages import Identity
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, Scored, Task
from tasks.batch_norm import has_statistics
from tasks.vision.backbones import ImageBackbone

logger = logging.getLogger(__name__)


def prepare(spec: RunSpec, device_type: str, report: Report, sources: SpecSources | None = None) -> Identity:
    """Check every checkpoint and prepare every task before any worker starts.

    Args:
        spec: the run.
        device_type: "cpu" or "cuda": where workers will evaluate.
        report: called with what is being done.
        sources: of the spec, if the caller uses their files afterwards.

    Raises:
        ValueError: if anything is wrong with a checkpoint or a task.
    """
    sources = sources or SpecSources(spec, spec.experts)
    find_all(spec, sources, report)
    return prepare_found(spec, device_type, report, sources)


def prepare_found(spec: RunSpec, device_type: str, report: Report, sources: SpecSources) -> Identity:
    """Do the rest of `prepare` after `missing.find_all`; of the experts, one at a time is in memory."""
    report("reading base", 0, 1)
    model, experts = load_checkpoints(spec, torch.device("cpu"), sources)
    return _prepare(spec, device_type, report, model, experts)[1]


def prepare_here(spec: RunSpec, report: Report, sources: SpecSources) -> Loaded:
    """Do what `prepare_found` does, and keep what is loaded for a worker of this process that evaluates on the CPU."""
    report("reading base", 0, 1)
    model, experts = load_flat(spec, torch.device("cpu"), sources)
    kept: list[Expert] = []

    def keep() -> Iterator[Expert]:
        for expert in experts:
            kept.append(expert)
            yield expert

    tasks, identity = _prepare(spec, "cpu", report, model, keep())
    return Loaded(model, tuple(kept), cast("Mapping[str, Task]", tasks), identity)


def _prepare(
    spec: RunSpec, device_type: str, report: Report, model: LoadedModel, experts: Iterator[Expert]
) -> tuple[Mapping[str, Scored], Identity]:
    _check_methods(spec, model.backbone)
    _check_scalings(spec, model)
    fingerprints = {}
    edited = None if spec.generation is None else EditedParameters(model.backbone, has_only_sums(spec))
    for expert in experts:
        fingerprints[expert.name] = expert.fingerprint
        if edited is not None:
            edited.add(expert.delta)
        report(f"checked {expert.name}", len(fingerprints), len(spec.experts))
    if edited is not None:
        _check_components(spec, sorted(edited.names))
    if spec.generation is not None and has_statistics(model.backbone.module):
        logger.warning(
            "backbone.family: %s: has batch normalisation, whose statistics stay the base's in every candidate of a "
            "run of rewards",
            spec.backbone.family,
        )
    tasks = _load_scored(spec, model, report)
    return tasks, identify(spec, model, fingerprints, tasks, torch.device(device_type), edited)


def _check_methods(spec: RunSpec, backbone: Backbone) -> None:
    """Refuse methods that learn from images for a model that reads none, before its experts are read.

    Raises:
        ValueError: if an arm has one; the field is named.
    """
    if isinstance(backbone, ImageBackbone):
        return
    for name, arm in spec.arms.items():
        if arm.merge and arm.merge.method and METHODS[arm.merge.method].needs:
            raise ValueError(
                f"arms.{name}.merge.method: {arm.merge.method} learns from labelled images, which a model of family "
                f"{backbone.family} does not read; use a method without statistics, such as sum"
            )


def _check_scalings(spec: RunSpec, model: LoadedModel) -> None:
    """Refuse functions of depth that need more blocks than the model has, and components that it does not have.

    Raises:
        ValueError: if an arm has one; the field is named.
    """
    for name, arm in spec.arms.items():
        try:
            check_groups(arm.scaling.function, arm.scaling.params, model.backbone.layer_map.num_blocks)
        except ValueError as error:
            raise ValueError(f"arms.{name}.scaling.params.{error}") from None
    _check_components(spec, [name for name, _ in model.backbone.module.named_parameters()])


def _check_components(spec: RunSpec, edited: Collection[str]) -> None:
    """Refuse components that none of the edited parameters has.

    Raises:
        ValueError: if an arm has one; the field is named.
    """
    for name, arm in spec.arms.items():
        used = dict.fromkeys(arm.scaling.components, 1.0)
        try:
            Components(tuple(used.items()), tuple(arm.scaling.patterns.items())).check(edited)
        except ValueError as error:
            raise ValueError(f"arms.{name}.scaling.{error}") from None


def _load_scored(spec: RunSpec, model: LoadedModel, report: Report) -> Mapping[str, Scored]:
    if spec.generation is None:
        return load_tasks(spec, model.backbone, report)
    from pipeline.loading import rewards  # transformers: other runs need not wait for it

    report("reading prompts and rewards", 0, 1)
    return rewards.reward_tasks(spec, rewards.prompts_of(spec, rewards.as_policy(model.backbone)))
