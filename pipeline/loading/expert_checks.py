"""Check what experts and their base have in common, besides the shapes of their tensors."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from pipeline.checkpoints.files import CheckpointFiles
from pipeline.checkpoints.lazy import open_checkpoint
from pipeline.checkpoints.pieces import outline
from pipeline.loading.spec_sources import SpecSources
from pipeline.merging.task_vectors import NamedTensors, norm
from tasks.base import Backbone
from tasks.files.sources import Source
from tasks.lora import ChecksPolicies
from tasks.name_matching import match_names

#: ||task vector|| / ||base|| above which the expert hardly comes from this base: fine-tunes of CLIP are at a few
#: hundredths (the embedded ones at 0.02 to 0.04), models trained independently at about 1.4.
_FAR = 0.7
#: Ends the error for a task vector that is 0.
NO_CHANGE = "has the weights of the base, so there is nothing to edit: is it the fine-tuned file?"

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
            _check_same_weights(name, of, sources.base)
        elif of and (hub := Source.parse(base)).kind == "hub" and hub.name.partition("@")[0] != of:
            logger.warning("experts.%s: its adapter was trained on %s, but the base is %s", name, of, base)


def _check_same_weights(name: str, of: str, base: CheckpointFiles) -> None:
    """Refuse an adapter of other weights; a copy of the base in another place, or in another precision, is the base.

    Raises:
        ValueError: if a tensor that both models have differs by more than rounding.
    """
    try:
        theirs, ours = open_checkpoint(of).state, open_checkpoint(base).state
    except ValueError as error:
        logger.warning(
            "experts.%s: its adapter was trained on %s, but the base is %s (%s)", name, of, base.label, error
        )
        return
    shapes = ({key: tensor.shape for key, tensor in outline(state).items()} for state in (theirs, ours))
    for own, key in match_names(*shapes).names.items():
        if not _same_numbers(theirs[key], ours[own]):
            raise ValueError(
                f"experts.{name}: its adapter was trained on {of}, whose {key} differs from that of the base "
                f"{base.label}: an adapter changes one model; give base: {of}, or an adapter of this base"
            )


def _same_numbers(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        return a.shape == b.shape and bool(torch.equal(a, b))
    eps = max(torch.finfo(a.dtype).eps, torch.finfo(b.dtype).eps)
    return torch.allclose(a.float(), b.float(), rtol=2 * eps, atol=1e-7)


def _policy_folder(files: CheckpointFiles) -> Path | None:
    """The folder of a policy with its tokenizer, which its weights alone do not bring from the hub."""
    from tasks.language.models import model_folder

    return model_folder(files.source) if files.folder and files.source.kind == "hub" else files.folder


def check_distance(delta: NamedTensors, base_norm: float) -> None:
    """Check that an expert is near its base, and not the base itself.

    Raises:
        ValueError: if its task vector is zero, or the base is.
    """
    if base_norm == 0:
        raise ValueError("base: every weight is 0; expected a pre-trained model")
    distance = norm(delta.tensors.values()) / base_norm
    if distance == 0:
        raise ValueError(f"{delta.source}: {NO_CHANGE}")
    if distance > _FAR:
        logger.warning(
            "%s: differs from the base by %.2f of the base's norm, as independently trained models do (fine-tuning "
            "gives about 0.03): is this the base that it was fine-tuned from?",
            delta.source,
            distance,
        )
