"""From a spec to what is in memory: backbone, checked experts, tasks; the same code in preparation and in workers."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor

from pipeline.loading.expert_checks import check_distance, check_vocabularies
from pipeline.records.ledger import Identity
from pipeline.checkpoints.lora import Adapter, adapter_fingerprint, read_adapter
from pipeline.checkpoints.checkpoint import fingerprint, read_checkpoint
from pipeline.merging.task_vectors import Named, layer_sizes, norm, task_vector
from pipeline.merging.edited_parameters import Edited, merge_methods
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.scaling import LayerSizes
from pipeline.checkpoints.sources import locate, locate_adapter
from pipeline.loading.missing import check_present, fetch_urls
from pipeline.spec.run import RunSpec
from pipeline.spec.protocol import ModelSpec
from tasks.lora import ChecksPolicies, TakesAdapters
from tasks.base import Backbone, Scored, Task, TaskRequest
from tasks.vision.classification import ImageTextBackbone, load_task
from tasks.vision.clip.architectures import pretrained_source
from tasks.files.models import nearby
from tasks.registry import BACKBONES, load_plugins

#: (what is being done, steps done, steps in all)
Report = Callable[[str, int, int], None]
_PRETRAINED = "pretrained:"


@dataclass(frozen=True)
class Model:
    """A backbone that holds theta0, and theta0 itself.

    Attributes:
        backbone: the model family, on its device.
        base: theta0 by the names of `backbone.module.named_parameters()`.
        fingerprint: of the base's checkpoint.
    """

    backbone: Backbone
    base: Named
    fingerprint: str

    @property
    def sizes(self) -> LayerSizes:
        """Edited parameters outside the blocks and in each block."""
        return layer_sizes(self.backbone.layer_map, dict(self.backbone.module.named_parameters()))


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


def load_model(spec: ModelSpec, device: torch.device) -> Model:
    """Build the backbone with the base's weights.

    Raises:
        ValueError: the family is unknown, or the base is not a checkpoint of the architecture; the file is named.
    """
    load_plugins(spec.plugins)
    source, options = spec.base, dict(spec.backbone.options)
    if source.startswith(_PRETRAINED):
        options["pretrained"] = source.removeprefix(_PRETRAINED)
        source = pretrained_source(spec.backbone.model, options["pretrained"])
    try:
        build = BACKBONES[spec.backbone.family]
    except ValueError as error:
        raise ValueError(f"backbone.family: {error}") from None
    try:
        checkpoint = read_checkpoint(source)
        backbone = build(spec.backbone.model, checkpoint.state, device, dtype_of(spec), options)
        base = backbone.select(checkpoint.state, _file(source))
    except ValueError as error:
        raise ValueError(_about_base(spec.base, str(error))) from error
    return Model(backbone, Named(spec.base, base), checkpoint.fingerprint)


def _about_base(source: str, text: str) -> str:
    """A family's loader is given tensors, and calls them "base"; readers name the file; options name themselves."""
    if text.startswith("base: "):
        return f"base: {source}: {text.removeprefix('base: ')}"
    return text if text.startswith("backbone.") else f"base: {text}"


def dtype_of(spec: ModelSpec) -> torch.dtype:
    """The precision of the evaluated weights."""
    dtype = getattr(torch, spec.backbone.precision)
    assert isinstance(dtype, torch.dtype)
    return dtype


def load_experts(spec: RunSpec, model: Model) -> Iterator[Expert]:
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
        check_distance(Named(f"experts.{name}: {source}", delta), size)
        yield Expert(name, delta, mark)


def _expert(source: str, model: Model) -> tuple[Mapping[str, Tensor], str]:
    """Task vector and fingerprint of a checkpoint or of a LoRA adapter."""
    if adapter := locate_adapter(source):
        low_rank = _low_rank(read_adapter(source, adapter), model)
        return low_rank, adapter_fingerprint(low_rank)
    tensors = model.backbone.select(read_checkpoint(source).state, _file(source))
    return task_vector(model.base, Named(source, tensors)), fingerprint(tensors)


def _low_rank(adapter: Adapter, model: Model) -> LowRankDelta:
    if not isinstance(model.backbone, TakesAdapters):
        raise ValueError(f"{adapter.source}: a LoRA adapter, which the family {model.backbone.family} does not take")
    parts = model.backbone.weight_parts(adapter.factors, adapter.source)
    return adapter.task_vector(parts, {name: tensor.shape for name, tensor in model.base.tensors.items()})


def _file(source: str) -> str:
    """The file itself where the source is a name for one: a config.json may lie beside it."""
    return str(locate(source)[0]) if source.startswith("hf:") else nearby(source)


def load_tasks(spec: RunSpec, model: Model, report: Report) -> dict[str, Task]:
    """Load every task; what the caches lack is decoded and encoded first.

    Raises:
        ValueError: an unknown source or option, an image that cannot be decoded, no samples in a split.
    """
    tasks: dict[str, Task] = {}
    for name, task in {**spec.tasks, **spec.ood}.items():
        limits: Mapping[str, int | None] = {**spec.limits, **task.limits}  # type: ignore[dict-item]
        request = TaskRequest(name, task.source, limits, task.options)

        def progress(done: int, total: int, name: str = name) -> None:
            report(f"decoding {name}", done, total)

        where = f"ood.{name}" if name in spec.ood else f"tasks.{name}"
        try:
            tasks[name] = load_task(request, model.backbone, progress)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(f"tasks.{name}") else f"{where}: {text}") from error
        for split in ("test",) if name in spec.ood else ("val", "test"):
            if tasks[name].num_samples(split) == 0:
                help_ = (
                    "a set with test images alone belongs under `ood`; else add images"
                    if split == "val"
                    else "add images"
                )
                raise ValueError(f"{where}: {task.source}: has no {split} samples; {help_}")
    return tasks


def identify(
    spec: RunSpec,
    model: Model,
    experts: Mapping[str, str],
    tasks: Mapping[str, Scored],
    device: torch.device,
    edited: Edited | None = None,
) -> Identity:
    """What scores stand on.

    Args:
        spec: the run.
        model: the base.
        experts: name -> fingerprint, in the order of the spec.
        tasks: every task of the run.
        device: what kind of device evaluates.
        edited: what the policies of a run of rewards change; of all others, every parameter counts.
    """
    sizes = model.sizes if edited is None else edited.sizes
    library = "open_clip" if spec.generation is None else "transformers"
    version = metadata.version({"open_clip": "open_clip_torch"}.get(library, library))
    checkpoints = {"base": model.fingerprint, **experts}
    text = "\0".join([spec.backbone.family, spec.backbone.model, _inputs(model.backbone), *checkpoints.values()])
    return Identity(
        fingerprint=hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        tasks={n: (t.fingerprint, t.num_samples("val"), t.num_samples("test")) for n, t in tasks.items()},
        metrics={n: t.metric for n, t in tasks.items()},
        block_sizes=sizes.blocks,
        outside_size=sizes.outside,
        checkpoints=checkpoints,
        numerics=f"{spec.backbone.precision} on {device.type}, torch {torch.__version__}, {library} {version}"
        + ", adapters apart" * (edited is not None and edited.apart),
        targets={expert: spec.target(expert) for expert in spec.experts},
    )


def _inputs(backbone: Backbone) -> str:
    """What is done to data before the weights see them, where no data set's fingerprint says it."""
    if isinstance(backbone, ChecksPolicies):
        return backbone.inputs
    # Mean and standard deviation are applied on the device.
    return repr(backbone.preprocess) if isinstance(backbone, ImageTextBackbone) else ""


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


def _scored(spec: RunSpec, model: Model, report: Report) -> Mapping[str, Scored]:
    if spec.generation is None:
        return load_tasks(spec, model, report)
    from pipeline.loading.rewards import as_policy, prompts_of, reward_tasks  # transformers: other runs need not wait for it

    report("reading prompts and rewards", 0, 1)
    return reward_tasks(spec, prompts_of(spec, as_policy(model.backbone)))
