"""Check what experts and their base have in common, besides the shapes of their tensors."""

import logging
from pathlib import Path

from pipeline.checkpoints.files import CheckpointFiles
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.task_vectors import NamedTensors, norm
from tasks.base import Backbone
from tasks.lora import ChecksPolicies

#: ||task vector|| / ||base|| above which the expert hardly comes from this base: fine-tunes of CLIP are at a few
#: hundredths (the embedded ones at 0.02 to 0.04), models trained independently at about 1.4.
_FAR = 0.7

logger = logging.getLogger(__name__)


def check_policies(sources: SpecSources, backbone: Backbone) -> None:
    """Check that policies have the base's vocabulary, and adapters one base: their weights would not show it.

    Raises:
        ValueError: if they have not; the experts are named.
    """
    if not isinstance(backbone, ChecksPolicies):
        return
    from tasks.language.experts import adapter_base, check_same_base  # transformers, which the backbone has imported

    bases = {}
    for name, files in sources.experts():
        try:
            if folder := _policy_folder(files):
                backbone.check_expert(folder, files.label)
                bases[name] = adapter_base(folder, files.label)
        except ValueError as error:
            raise ValueError(f"experts.{name}: {error}") from error
    check_same_base(bases)
    base = sources.base.label
    for name, of in bases.items():
        if of and Path(of).exists() and Path(base).exists() and Path(of).resolve() != Path(base).resolve():
            logger.warning("experts.%s: its adapter was trained on %s, but the base is %s", name, of, base)


def _policy_folder(files: CheckpointFiles) -> Path | None:
    """The folder of a policy with its tokenizer, which its weights alone do not bring from the hub."""
    from tasks.language.models import model_folder

    return model_folder(files.source) if files.folder and files.source.kind == "hub" else files.folder


def check_distance(delta: NamedTensors, base_norm: float) -> None:
    """Check that an expert is near its base, and not the base itself.

    Raises:
        ValueError: if its task vector is zero.
    """
    distance = norm(delta.tensors.values()) / base_norm
    if distance == 0:
        raise ValueError(
            f"{delta.source}: has the weights of the base, so there is nothing to edit: is it the fine-tuned file?"
        )
    if distance > _FAR:
        logger.warning(
            "%s: differs from the base by %.2f of the base's norm, as independently trained models do (fine-tuning "
            "gives about 0.03): is this the base that it was fine-tuned from?",
            delta.source,
            distance,
        )
