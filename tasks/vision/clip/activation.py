"""The activation that a checkpoint needs: it is not in the weights, but a configuration next to them may name it."""

import logging
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.files.json_files import read_object
from tasks.vision.clip.architectures import check_activation
from tasks.vision.libraries import open_clip

logger = logging.getLogger(__name__)

#: The default of transformers' CLIPConfig.
_HUGGING_FACE_DEFAULT = "quick_gelu"


class ActivationCheck:
    """Refuses weights whose activation is not the architecture's; warns once if a checkpoint's is unknown."""

    def __init__(self, model: str, computed: str, stated: str | None) -> None:
        """Take the architecture, the activation that it computes, and the one that the spec states, if any."""
        self._model, self._computed, self._stated = model, computed, stated
        self._known = stated is not None

    def __call__(self, source: str, hugging_face: bool) -> None:
        """Check the weights of `source`: see `needed_activation`.

        Raises:
            ValueError: if they need another activation; the architecture to use is named.
        """
        needed = needed_activation(source, hugging_face, self._stated)
        if needed and self._computed != "none":
            check_activation(self._computed, needed[0], self._model, needed[1])
        if not needed and not self._known and self._computed != "none":
            warn_of_unknown(self._model, self._computed, source)
        self._known = True


def needed_activation(source: str, hugging_face: bool, stated: str | None) -> tuple[str, str] | None:
    """Return the activation that the weights of `source` need, and the evidence for it; None if unknown.

    Args:
        source: a file, or the folder of one model. If it holds `config.json` (Hugging Face's names) or
            `open_clip_config.json` (open_clip's), that decides.
        hugging_face: whether the weights have Hugging Face's names.
        stated: backbone.options.activation, used if there is no configuration.

    Raises:
        ValueError: if the configuration cannot be read.
    """
    path = Path(source).expanduser()
    config = (path if path.is_dir() else path.parent) / ("config.json" if hugging_face else "open_clip_config.json")
    if config.is_file():
        needed = _hidden_act if hugging_face else _quick_gelu
        return needed(read_object(config, str(config)), str(config)), f"the weights next to {config}"
    if stated is not None:
        return stated, "by backbone.options.activation the weights"
    if not hugging_face:
        return None
    logger.warning(
        "%s: has no config.json next to it; its activation is assumed to be %s, the default of Hugging Face's CLIP "
        "(set backbone.options.activation if it is another)",
        source,
        _HUGGING_FACE_DEFAULT,
    )
    return _HUGGING_FACE_DEFAULT, f"Hugging Face weights ({source}; unless backbone.options.activation is gelu)"


def warn_of_unknown(model: str, activation: str, source: str) -> None:
    """Warn that weights load into both of a pair of architectures, MODEL and MODEL-quickgelu, and are right in one."""
    stem = model.removesuffix("-quickgelu")
    if model == stem and f"{stem}-quickgelu" in open_clip.list_models():
        logger.warning(
            "%s: the activation that these weights need is unknown; %s computes %s, but OpenAI's weights and models "
            "fine-tuned from them need %s-quickgelu. If %s is right, set backbone.options.activation: %s",
            source,
            model,
            activation,
            model,
            activation,
            activation,
        )


def _hidden_act(config: Mapping[str, Any], subject: str) -> str:
    vision = _mapping(config.get("vision_config", {}), f"{subject}: vision_config")
    return str({**config, **vision}.get("hidden_act", _HUGGING_FACE_DEFAULT))


def _quick_gelu(config: Mapping[str, Any], subject: str) -> str:
    model = _mapping(config.get("model_cfg", config), f"{subject}: model_cfg")
    return "quick_gelu" if model.get("quick_gelu") else "gelu"


def _mapping(value: object, subject: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{subject}: must be a mapping, got {reprlib.repr(value)}")
    return value
