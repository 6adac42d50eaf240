"""Checkpoints whose tensors transformers renames or joins when it loads them: GPT-NeoX, mixtures of experts, Jamba."""

import copy
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from tasks.language.models import without_progress_bars
from tasks.language.tensor_names import TensorNames
from tasks.name_matching import without_wrappers


def in_module_names(state: Mapping[str, Tensor], module: PreTrainedModel, names: TensorNames) -> Mapping[str, Tensor]:
    """Return a checkpoint by the names of a module, if transformers' own conversion gives exactly its parameters.

    transformers 5 holds the experts of a block in one tensor, and saves them one by one, as all files have them.

    Args:
        state: of the checkpoint.
        module: of the architecture, which may be on the meta device.
        names: of the module.

    Returns:
        The converted checkpoint; `state` itself if it has all names anyway, or no conversion fits.
    """
    if not names.lacks(state):
        return state
    weights = {name: state[name] for name in names.weights(state)}
    dtypes = {tensor.dtype for tensor in weights.values()}
    if not all(dtype.is_floating_point for dtype in dtypes):
        return state
    loader: Any = type(module)  # its functions have no types
    plain = {name: state[full] for name, full in without_wrappers(weights, keep=(module.base_model_prefix,)).items()}
    logging: Any = transformers_logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is reported by the caller, by the file's names
    try:
        with without_progress_bars():
            loaded, report = loader.from_pretrained(
                None,
                config=copy.deepcopy(module.config),
                state_dict=plain,
                dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32,
                output_loading_info=True,
            )
    except (RuntimeError, ValueError):
        return state
    finally:
        logging.set_verbosity(verbosity)
    if report["missing_keys"] or report["mismatched_keys"] or names.strange(report["unexpected_keys"]):
        return state
    return {name: parameter.detach() for name, parameter in loaded.named_parameters()}


def saved_modules(module: PreTrainedModel) -> dict[str, str]:
    """Return the modules that files name otherwise: the name in files -> the module's own.

    transformers 5 renamed the modules of many image towers, and goes on writing the old names. peft names the modules
    of an adapter as the version did that it was trained with.

    Returns:
        Nothing if the weights of the architecture are saved in other shapes than they are held.
    """
    with torch.device("meta"):  # a loaded module may write the names that it was read by
        fresh = type(module)(copy.deepcopy(module.config))
    names = [name for name, _ in fresh.named_parameters()]
    numbered = {name: torch.tensor(i) for i, name in enumerate(names)}
    with TemporaryDirectory() as folder, without_progress_bars():
        try:
            fresh.save_pretrained(folder, state_dict=numbered)
        except (IndexError, RuntimeError, ValueError):
            return {}
        saved = {name: names[int(number)] for name, number in load_file(Path(folder) / "model.safetensors").items()}
    return {
        name.removesuffix(".weight"): own.removesuffix(".weight")
        for name, own in saved.items()
        if name != own and name.endswith(".weight")
    }
