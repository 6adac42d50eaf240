"""Which activation a checkpoint's weights need: nothing in the weights says it, but a file beside them may."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip

from tasks.vision.clip.architectures import check_activation

logger = logging.getLogger(__name__)

#: The default of transformers' CLIPConfig.
_HUGGING_FACE_DEFAULT = "quick_gelu"


class ActivationCheck:
    """Weights of a known activation must fit the architecture; for others one warning is enough, of the first."""

    def __init__(self, model: str, computed: str, said: str | None) -> None:
        """Take the architecture, the activation that it computes, and the one that the spec says the weights need."""
        self._model, self._computed, self._said = model, computed, said
        self._known = said is not None

    def __call__(self, source: str, hugging_face: bool) -> None:
        """Check the weights of `source`: see `needed_activation`.

        Raises:
            ValueError: they need another activation; the architecture to use is named.
        """
        needed = needed_activation(source, hugging_face, self._said)
        if needed and self._computed != "none":
            check_activation(self._computed, needed[0], self._model, needed[1])
        if not needed and not self._known:
            warn_of_unknown(self._model, self._computed, source)
        self._known = True


def needed_activation(source: str, hugging_face: bool, said: str | None) -> tuple[str, str] | None:
    """The activation that the weights of `source` need, and how that is known; None where nothing says it.

    Args:
        source: a file, or the folder of one model; `config.json` (Hugging Face's names) or `open_clip_config.json`
            (open_clip's) is looked for beside the weights.
        hugging_face: whether the weights have Hugging Face's names.
        said: backbone.options.activation, for files that have nothing beside them.

    Raises:
        ValueError: the file beside the weights is not a configuration.
    """
    path = Path(source).expanduser()
    config = (path if path.is_dir() else path.parent) / ("config.json" if hugging_face else "open_clip_config.json")
    if config.is_file():
        return (_hidden_act if hugging_face else _quick_gelu)(_read(config)), f"the weights beside {config}"
    if said is not None:
        return said, "by backbone.options.activation the weights"
    if not hugging_face:
        return None
    logger.warning(
        "%s: has no config.json beside it; %s is taken for its activation, as Hugging Face's CLIP has by default "
        "(backbone.options.activation says otherwise)",
        source,
        _HUGGING_FACE_DEFAULT,
    )
    return _HUGGING_FACE_DEFAULT, f"Hugging Face weights ({source}; unless backbone.options.activation says gelu)"


def warn_of_unknown(model: str, activation: str, source: str) -> None:
    """OpenAI's weights and their fine-tunes load into both of a pair of architectures, and are right in one."""
    stem = model.removesuffix("-quickgelu")
    if model == stem and f"{stem}-quickgelu" in open_clip.list_models():
        logger.warning(
            "%s: nothing says which activation these weights need; %s computes %s, and OpenAI's weights with all that "
            "was fine-tuned from them need %s-quickgelu. Where %s is right, say so by backbone.options.activation: %s",
            source,
            model,
            activation,
            model,
            activation,
            activation,
        )


def _hidden_act(config: Mapping[str, Any]) -> str:
    return str({**config, **config.get("vision_config", {})}.get("hidden_act", _HUGGING_FACE_DEFAULT))


def _quick_gelu(config: Mapping[str, Any]) -> str:
    return "quick_gelu" if config.get("model_cfg", config).get("quick_gelu") else "gelu"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a model configuration: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: must hold a mapping, got {type(config).__name__}")
    return config
