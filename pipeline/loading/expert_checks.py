"""What experts must have in common with their base, beside the shapes of their tensors."""

import logging
from pathlib import Path

from pipeline.merging.task_vectors import NamedTensors, norm
from pipeline.spec.run import RunSpec
from tasks.base import Backbone
from tasks.lora import ChecksPolicies

#: ||task vector|| / ||base|| above which the expert hardly comes from this base: fine-tunes of CLIP lie at a few
#: hundredths (the embedded ones at 0.02 to 0.04), models trained apart at about 1.4.
_FAR = 0.7

logger = logging.getLogger(__name__)


def check_vocabularies(spec: RunSpec, backbone: Backbone) -> None:
    """Policies have the base's vocabulary, and adapters one base: their weights alone would not show it.

    Raises:
        ValueError: they have not; the experts are named.
    """
    if not isinstance(backbone, ChecksPolicies):
        return
    from tasks.language.experts import adapter_base, check_same_base  # transformers, which is there by now

    for name, source in spec.experts.items():
        try:
            backbone.check_expert(source)
        except ValueError as error:
            raise ValueError(f"experts.{name}: {error}") from error
    check_same_base(spec.experts)
    for name, source in spec.experts.items():
        of = adapter_base(source)
        if of and Path(of).exists() and Path(spec.base).exists() and Path(of).resolve() != Path(spec.base).resolve():
            logger.warning("experts.%s: its adapter was trained on %s, but the base is %s", name, of, spec.base)


def check_distance(delta: NamedTensors, base_norm: float) -> None:
    """An expert is near its base, and not the base itself.

    Raises:
        ValueError: its task vector is zero.
    """
    distance = norm(delta.tensors.values()) / base_norm
    if distance == 0:
        raise ValueError(
            f"{delta.source}: has the weights of the base, so there is nothing to edit: is it the fine-tuned file?"
        )
    if distance > _FAR:
        logger.warning(
            "%s: differs from the base by %.2f of the base's norm, as models do that were trained apart (fine-tuning "
            "gives about 0.03): is this the base that it was fine-tuned from?",
            delta.source,
            distance,
        )
