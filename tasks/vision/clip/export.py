"""Export of an edited image tower and the base's text tower as one open_clip model: state dict and configuration."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from tasks.vision.clip.architectures import TIMM_FOLDER, config_file, timm_folder
from tasks.vision.clip.backbone import OpenClipBackbone
from tasks.vision.libraries import open_clip


def open_clip_state(backbone: OpenClipBackbone) -> dict[str, Tensor]:
    """Return the whole model: `visual.*` of the edited tower, and the base's text tower as in its file."""
    visual = {f"visual.{name}": tensor.detach().cpu() for name, tensor in backbone.module.state_dict().items()}
    return visual | dict(backbone.text.weights)


def open_clip_config(backbone: OpenClipBackbone) -> dict[str, Any]:
    """Return the content of open_clip_config.json; the folder `trunk_folder` must be copied next to it.

    Raises:
        ValueError: if open_clip does not know the architecture's configuration.
    """
    name = backbone.model_name
    path = config_file(name)
    config = json.loads(path.read_text()) if path else open_clip.get_model_config(name)
    if not config:
        raise ValueError(f"backbone.model: {name}: open_clip has no configuration of that name to export")
    model = dict(config.get("model_cfg") or config)
    model.pop("preprocess_cfg", None)
    if trunk := trunk_folder(backbone):
        model["vision_cfg"] = model["vision_cfg"] | {"timm_model_name": f"{TIMM_FOLDER}{trunk.name}"}
    how = backbone.preprocess
    preprocess = {
        "size": list(how.size),
        "mean": list(how.mean),
        "std": list(how.std),
        "interpolation": how.interpolation,
        "resize_mode": how.resize_mode,
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def vocabulary(backbone: OpenClipBackbone) -> Path | None:
    """Return the file of the tokenizer's vocabulary, as `architectures.create` finds it; None if it is open_clip's."""
    path = config_file(backbone.model_name)
    if path is None:
        return None
    text = _model_config(path)["text_cfg"]
    name = (text.get("tokenizer_kwargs") or {}).get("bpe_path")
    words = path.parent / (name or f"bpe_{text.get('vocab_size')}.txt.gz")
    return words if words.is_file() else None


def trunk_folder(backbone: OpenClipBackbone) -> Path | None:
    """Return the folder with timm's configuration of the image tower, if the model's configuration names one."""
    path = config_file(backbone.model_name)
    return timm_folder(path, _model_config(path)) if path else None


def _model_config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(path.read_text())
    return config.get("model_cfg") or config
