"""Rebuild a candidate as the workers of its run did, statistics of batch normalisation included."""

import logging
from collections.abc import Sequence

import torch

from pipeline.checkpoints.coverage import Part, edited_parts, present, with_measured
from pipeline.learning.gatherer import Gatherer
from pipeline.learning.normalisation import Calibration, NormalisedModel
from pipeline.loading.experts import Expert
from pipeline.loading.model import LoadedModel
from pipeline.loading.tasks import load_unchanged
from pipeline.merging.methods import METHODS
from pipeline.merging.resident import ResidentModel
from pipeline.messages import Identity
from pipeline.recipe import Recipe
from pipeline.spec.run import RunSpec
from tasks.batch_norm import statistics
from tasks.vision.clip.backbone import OpenClipBackbone

logger = logging.getLogger(__name__)


def export_device(identity: Identity) -> torch.device:
    """Return the device on which a candidate of a run is rebuilt: a GPU only if that decides bits.

    Weights have the same bits everywhere; statistics that are measured have those of the run's kind of device.
    """
    if not identity.calibration or " on cuda," not in identity.numerics:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    logger.warning(
        "statistics of batch normalisation are measured on this CPU, but the run's were on a GPU: their last bits may "
        "differ; export where a GPU is for the run's own"
    )
    return torch.device("cpu")


def rebuild(
    spec: RunSpec, identity: Identity, recipe: Recipe, model: LoadedModel, experts: Sequence[Expert]
) -> int | None:
    """Rebuild a recipe of a run in the model's backbone.

    Args:
        spec: of the run.
        identity: of the run.
        recipe: of the candidate.
        model: its base, on `export_device`.
        experts: in the order of the recipe's weights.

    Returns:
        The number of samples on which statistics of batch normalisation were measured; 0 if they are those of a file,
        None if the model has none.

    Raises:
        ValueError: if data that the rebuild needs have changed since the run.
    """
    backbone, needs, samples = model.backbone, METHODS[recipe.method].needs, identity.calibration
    used = [*map(spec.target, spec.experts if needs else ()), *samples]
    tasks = load_unchanged(spec, backbone, identity, used) if used else {}
    gather = Gatherer(spec, backbone, tasks, identity) if needs else None
    deltas = {expert.name: expert.delta for expert in experts}
    resident = ResidentModel(
        backbone.module, backbone.layer_map, model.base.tensors, deltas, backbone.device, backbone.dtype, gather
    )
    if not samples:
        resident.materialise(recipe)
        return None
    torch.set_num_threads(max(1, int(spec.resources.per_worker.num_cpus)))  # as workers do: sums depend on it
    normalised = NormalisedModel(resident, Calibration(backbone, tasks, samples), [e.statistics for e in experts])
    normalised.materialise(recipe)
    return sum(samples.values()) if normalised.measured else 0


def described(measured: int | None) -> str:
    """Describe the statistics of batch normalisation of a rebuilt model in words: see `rebuild`; "" without any."""
    if measured is None:
        return ""
    return f"measured on {measured} validation images of the run's tasks" if measured else "those of the stored model"


def coverage_of(backbone: OpenClipBackbone, measured: int | None) -> list[Part]:
    """Return what became of every tensor of a model; for `measured` see `rebuild`."""
    parameters = dict(backbone.module.named_parameters())
    buffers = {name: t for name, t in backbone.module.state_dict().items() if name not in parameters}
    stored = "statistics of batch normalisation, which are the stored model's"
    parts = [
        *edited_parts(parameters, backbone.layer_map.blocks),
        Part.of(stored if measured == 0 else "no weights, so they stay the base's", buffers),
        Part.of("outside the image tower, so they stay the base's", backbone.text.weights),
    ]
    return with_measured(parts, statistics(backbone.module), measured) if measured else present(parts)
