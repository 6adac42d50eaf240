"""The identity of a run: everything that its scores depend on."""

import hashlib
from collections.abc import Mapping
from importlib import metadata

import torch

from pipeline.loading.calibration import FORMAT, calibration_samples
from pipeline.loading.model import LoadedModel
from pipeline.merging.edited_parameters import EditedParameters
from pipeline.messages import Identity
from pipeline.spec.run import RunSpec
from tasks.base import Backbone, Scored, ScoresRows, Sized, StatesInputs
from tasks.lora import ChecksPolicies
from tasks.vision.backbones import ImageBackbone


def identify(
    spec: RunSpec,
    model: LoadedModel,
    experts: Mapping[str, str],
    tasks: Mapping[str, Scored],
    device: torch.device,
    edited: EditedParameters | None = None,
) -> Identity:
    """Return everything that the scores of a run depend on.

    Args:
        spec: the run.
        model: the base.
        experts: name -> fingerprint, in the order of the spec.
        tasks: every task of the run.
        device: that evaluates; its type counts.
        edited: parameters that the policies of a run of rewards change; in other runs every parameter counts.

    Raises:
        ValueError: if the model has batch normalisation, and there are too few samples to measure its statistics.
    """
    sizes = model.sizes if edited is None else edited.sizes
    language = spec.generation is not None or isinstance(model.backbone, ChecksPolicies)
    library = _library(model.backbone, language)
    version = metadata.version({"open_clip": "open_clip_torch"}.get(library, library))
    checkpoints = {"base": model.fingerprint, **experts}
    calibration = calibration_samples(spec, model.backbone.module, tasks)
    parts = [spec.backbone.family, spec.backbone.model, _inputs(model.backbone), *checkpoints.values()]
    if calibration:
        parts.append(f"statistics {FORMAT}")
        for name, count in calibration.items():
            # A task without images runs the model in batches of its own.
            parts.append(f"{tasks[name].fingerprint} {count} {spec.tasks[name].options.get('batch_size')}")
    text = "\0".join(parts)
    return Identity(
        fingerprint=hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        tasks={n: (t.fingerprint, t.num_samples("val"), t.num_samples("test")) for n, t in tasks.items()},
        metrics={n: t.metric for n, t in tasks.items()},
        block_sizes=sizes.blocks,
        outside_size=sizes.outside,
        checkpoints=checkpoints,
        numerics=f"{spec.backbone.precision} on {device.type}, torch {torch.__version__}, {library} {version}"
        + ", adapters apart" * (edited is not None and edited.low_rank),
        targets={expert: spec.target(expert) for expert in spec.experts},
        calibration=calibration,
        sizes={n: found for n, t in tasks.items() if (found := _sample_sizes(t))},
        together={n: size for n, t in tasks.items() if (size := _together(t))},
    )


def _together(task: Scored) -> int:
    """Return how many validation samples are scored together; 0 if they cannot be scored alone."""
    return task.together("val") if isinstance(task, ScoresRows) and task.num_samples("val") else 0


def _sample_sizes(task: Scored) -> dict[str, list[int]]:
    """Return split -> size of each sample; {} if the task's value is a mean."""
    found = {split: list(task.sizes(split)) for split in ("val", "test")} if isinstance(task, Sized) else {}
    return found if any(found.values()) else {}


def _library(backbone: Backbone, language: bool) -> str:
    if isinstance(backbone, StatesInputs):
        return backbone.library
    return "transformers" if language else "open_clip"


def _inputs(backbone: Backbone) -> str:
    """Return how data are processed before the model, as far as no data set's fingerprint includes it."""
    if isinstance(backbone, ChecksPolicies | StatesInputs):
        return backbone.inputs
    # Mean and standard deviation are applied on the device.
    return repr(backbone.preprocess) if isinstance(backbone, ImageBackbone) else ""
