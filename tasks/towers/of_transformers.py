"""Image towers of transformers: a folder as `save_pretrained` writes it, or a repository of the hub.

Shape legend: B images, T tokens of an image, D width of the tower, C, H, W channels, height and width of a feature map.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.batch_norm import has_statistics
from tasks.language.backbone import Loading, empty_model, with_weights
from tasks.language.conversion import in_module_names, saved_modules
from tasks.language.models import CONFIG, model_folder
from tasks.language.tensor_names import TensorNames
from tasks.lora import WeightPart
from tasks.registry import near
from tasks.towers.preprocessing import FILE, of_folder
from tasks.towers.tower import Tower

#: How a tower's output becomes one vector: that of the first token, or the mean of all tokens.
Pooling = Literal["cls", "mean"]
#: Not a part of the module: random in most published files, and not read here.
_POOLER = "pooler"
_INTERPOLATES = "interpolate_pos_encoding"


def transformers_tower(
    model: str, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype, options: Mapping[str, Any]
) -> Tower:
    """Build a tower with the base's weights; positions are interpolated to the size of the images.

    Args:
        model: source of its folder.
        state: of the base.
        device: of the tower.
        dtype: of its weights and activations.
        options: `pooling`, and those of `tasks.language.backbone.Loading`.

    Raises:
        ValueError: if it is no image model of transformers, or the weights do not fit.
    """
    loading = Loading.of(options, ("pooling", "image_size", "preprocess"))
    pooling = _pooling(options.get("pooling", "cls"))
    empty = empty_model(model, "vision", loading)
    if has_statistics(empty):
        raise ValueError(
            f"{model}: {type(empty).__name__} has batch normalisation, which this family reads of timm's models only: "
            "give timm/NAME as backbone.model, with timm's weights as base"
        )
    module = with_weights(empty, state, device, dtype, loading, (_POOLER,))
    names = TensorNames.of(module)
    folder = model_folder(model)
    takes = inspect.signature(type(module).forward).parameters
    return Tower(
        library="transformers",
        module=module,
        features=lambda output: _pooled(output.last_hidden_state, pooling),
        select=lambda found, source: names.select(in_module_names(found, module, names), source),
        weight_parts=lambda modules, source: _weight_parts(module, names, modules, source),
        preprocess=of_folder(folder, model),
        identity=f"{pooling} {(folder / CONFIG).read_text()}",
        arguments={_INTERPOLATES: True} if _INTERPOLATES in takes else {},
        companions=[path for path in (folder / FILE,) if path.is_file()],
    )


def _weight_parts(
    module: PreTrainedModel, names: TensorNames, modules: Iterable[str], source: str
) -> dict[str, WeightPart]:
    """Find the weights that an adapter changes, which may name its modules as files of whole models do."""
    given = list(modules)
    own = dict(zip(given, given, strict=True))
    if others := names.not_linear(given):
        saved = saved_modules(module)
        own |= {name: saved.get(name.removeprefix(names.prefix), name) for name in others}
    parts = names.weight_parts(own.values(), source)
    return {name: parts[own[name]] for name in given}


def _pooled(hidden: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector an image, (B, D), of tokens (B, T, D); of a feature map (B, D, H, W), its mean."""
    if hidden.ndim == 4:
        return hidden.float().mean(dim=(2, 3))
    return hidden[:, 0] if pooling == "cls" else hidden.float().mean(dim=1)


def _pooling(value: object) -> Pooling:
    if value not in get_args(Pooling):
        raise ValueError(
            f"backbone.options.pooling: must be cls or mean, got {value!r}; {near(str(value), get_args(Pooling))}"
        )
    return cast(Pooling, value)
