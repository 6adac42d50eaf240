"""Image towers of timm by name, without their classifier: `timm/tf_efficientnet_lite0`."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tasks.batch_norm import is_counter, without_buffers
from tasks.lora import WeightPart
from tasks.registry import check_options, near
from tasks.tensors import check_tensors, first_names
from tasks.towers.tower import Tower
from tasks.vision.libraries import timm_library

PREFIX = "timm/"


def timm_tower(
    model: str, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, options: Mapping[str, Any]
) -> Tower:
    """Build a tower with the base's weights; tensors of its classifier are left out.

    Args:
        model: `timm/NAME`.
        state: of the base, by timm's names.
        device: of the tower.
        dtype: of its weights and activations.
        options: `image_size`, for which a transformer is built.

    Raises:
        ValueError: if timm has no model of this name, or the weights do not fit.
    """
    check_options("backbone.options", options, ("image_size", "preprocess"))
    timm, name = timm_library(), model.removeprefix(PREFIX)
    if name not in (known := timm.list_models()):
        raise ValueError(f"{model}: timm has no such architecture; {near(name, known)}")
    module, config = _created(timm, name, options.get("image_size"))
    heads = _head_names(config)
    shapes = {n: t.shape for n, t in module.state_dict().items() if not is_counter(n)}
    weights = {n: t for n, t in _without_head(state, heads).items() if not is_counter(n)}
    check_tensors(weights, shapes, "base")
    module.load_state_dict(weights, strict=False)  # counters of batches may be missing
    module = module.to(device, dtype)
    parameters = {n: p.shape for n, p in module.named_parameters()}

    def select(found: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        own = without_buffers(_without_head(found, heads), module)
        check_tensors(own, parameters, source)
        return {n: own[n] for n in parameters}

    stated = {ours: config[ours] for ours in ("mean", "std", "interpolation") if ours in config}
    stated["size"] = list(config["input_size"][1:])
    return Tower(
        library="timm",
        module=module,
        features=lambda output: output,
        select=select,
        weight_parts=lambda names, source: _parts(module, names, source),
        preprocess=stated,
        identity=model,
    )


def _created(timm: Any, name: str, size: object) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return the model and what timm states of it; a transformer is built for the image size."""
    try:
        module: nn.Module = timm.create_model(name, num_classes=0, **({} if size is None else {"img_size": size}))
    except TypeError:  # convolutions take images of any size
        module = timm.create_model(name, num_classes=0)
    config: Any = module.pretrained_cfg
    return module, config


def _head_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    stated = config.get("classifier") or ()
    return tuple(f"{name}." for name in ([stated] if isinstance(stated, str) else stated))


def _without_head(state: Mapping[str, Tensor], heads: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(heads)}


def _parts(module: nn.Module, names: Iterable[str], source: str) -> Mapping[str, WeightPart]:
    linear = {name for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    names = list(names)
    if strange := [name for name in names if name not in linear]:
        raise ValueError(
            f"{source}: changes {first_names(strange)}: not a linear module of the tower; was it trained on another "
            "architecture?"
        )
    return {name: WeightPart(f"{name}.weight") for name in names}
