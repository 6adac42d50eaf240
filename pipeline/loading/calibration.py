"""Batch normalisation in a run: which samples measure a candidate's statistics, and what a checkpoint has stored."""

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.spec.run import RunSpec
from tasks.base import Scored
from tasks.batch_norm import has_statistics, statistics
from tasks.name_matching import match_names
from tasks.tensors import first_names

logger = logging.getLogger(__name__)

#: Part of the identity of a run whose model has statistics: raised when the same inputs give other ones.
FORMAT = "1"
#: Validation samples of each task that are used at most, the first of its fixed order.
SAMPLES = 256
#: Samples of a batch.
BATCH = 128


def calibration_samples(spec: RunSpec, module: nn.Module, tasks: Mapping[str, Scored]) -> dict[str, int]:
    """Return how many validation samples of each task measure statistics; nothing if the module has none to measure.

    Raises:
        ValueError: if there are fewer than two samples: a variance needs two.
    """
    if spec.generation is not None or not has_statistics(module):
        return {}
    counts = {name: min(SAMPLES, tasks[name].num_samples("val")) for name in spec.tasks}
    if sum(counts.values()) < 2:
        raise ValueError(
            f"tasks: the model has batch normalisation, whose statistics are measured on the validation samples of all "
            f"tasks: two or more are needed, got {sum(counts.values())}; raise limits.val, or add validation images"
        )
    return counts


def stored_statistics(module: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the statistics of a checkpoint by the module's names, which may have other prefixes in the file.

    What is not found is left out, with a warning: the base's is then used.
    """
    known = {name: tensor.shape for name, tensor in module.state_dict().items()}
    names = match_names({name: tensor.shape for name, tensor in state.items()}, known).names
    wanted = statistics(module)
    found = {n: state[names[n]] for n in wanted if n in names and state[names[n]].shape == known[n]}
    if missing := [name for name in wanted if name not in found]:
        logger.warning(
            "%s: holds no statistics of batch normalisation for %s; the base's are used where it is scored unscaled",
            source,
            first_names(missing),
        )
    return found
