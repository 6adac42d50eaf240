"""open_clip architectures and tokenizers by name or configuration file, their activation, and pretrained tags.

OpenAI's weights were trained with QuickGELU. open_clip 3 builds plain GELU for "ViT-B-32" and only warns, so this
module checks the activation against the one that the weights need.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from tasks import embedded
from tasks.files.hub import hub_silence, out_of_reach
from tasks.files.json_files import parse_json
from tasks.registry import check_options, near
from tasks.vision.libraries import open_clip
from tasks.vision.preprocess import Preprocess

Tokenizer: TypeAlias = Callable[..., Tensor]
_SCHEMAS = ("local-dir:", "hf-hub:")
TIMM_FOLDER = "local-dir:"
#: Fields of backbone.options that `configured` reads.
OPTIONS = ("activation", "preprocess", "pretrained")
_PREPROCESS_OPTIONS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
_ACTIVATIONS = ("gelu", "quick_gelu")
#: Files that open_clip looks for in a hub repository if its entry names none.
_HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Architecture:
    """A model with random weights, its tokenizer and its preprocessing."""

    name: str
    model: Any
    tokenizer: Tokenizer
    preprocess: Preprocess


def configured(model: str, options: Mapping[str, Any]) -> tuple[Architecture, str | None]:
    """Build the architecture of a spec's backbone; return it with the activation that the spec states, if any.

    Args:
        model: see `create`.
        options: `pretrained`, the base's open_clip tag, which gives its preprocessing and activation; `activation`, the
            base's, gelu or quick_gelu; `preprocess`, fields of open_clip's preprocess_cfg to override.

    Raises:
        ValueError: if a model, tag or field is unknown, or the model does not compute the activation of the weights.
    """
    check_options("backbone.options.preprocess", options.get("preprocess", {}), _PREPROCESS_OPTIONS)
    tag = tag_config(model, options["pretrained"]) if "pretrained" in options else {}
    overrides = {k: tag[k] for k in _PREPROCESS_OPTIONS if k in tag} | dict(options.get("preprocess", {}))
    architecture = create(model, overrides)
    stated = _stated_activation(tag, options)
    if stated:
        check_activation(model_activation(architecture.model), stated[0], model, stated[1])
    return architecture, stated[0] if stated else None


def _stated_activation(tag: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the activation that the spec states for the base's weights, and the field; None without one."""
    if "activation" in options:
        if options["activation"] not in _ACTIVATIONS:
            raise ValueError(f"backbone.options.activation: must be in {_ACTIVATIONS}, got {options['activation']!r}")
        return options["activation"], "by backbone.options.activation the weights"
    if tag:
        return tag_activation(tag), f"the weights of tag {options['pretrained']!r}"
    return None


def create(name: str, preprocess: Mapping[str, object]) -> Architecture:
    """Build an architecture without weights.

    Args:
        name: an open_clip architecture ("ViT-B-32-quickgelu"), "embedded/NAME", a path to a JSON configuration, or
            open_clip's "local-dir:" and "hf-hub:" names.
        preprocess: fields of preprocess_cfg to override.

    A configuration file holds open_clip's model_cfg, at the top or under that key, and preprocess_cfg. Its tokenizer is
    CLIP's, with the vocabulary `bpe_VOCABSIZE.txt.gz` in the same folder if there is one (or
    tokenizer_kwargs.bpe_path). A timm_model_name `local-dir:FOLDER` is a subfolder whose config.json has timm's
    architecture and model_args.

    Raises:
        ValueError: if the architecture or file does not exist (near names are suggested).
    """
    if path := config_file(name):
        return _from_file(name, path, preprocess)
    if not name.startswith(_SCHEMAS) and name not in (known := open_clip.list_models()):
        close = near(name, known)
        hint = close if close.startswith("did") else "see open_clip.list_models(); OpenAI's is ViT-B-32-quickgelu"
        raise ValueError(f"backbone.model: no open_clip architecture or .json file {name!r}; {hint}")
    return _create(name, name, preprocess)


def config_file(name: str) -> Path | None:
    """Return the configuration file of an architecture that open_clip does not know by name; None for others.

    Raises:
        ValueError: if there is no embedded configuration of this name; near names are suggested.
    """
    if not name.startswith("embedded/"):
        return Path(name) if name.endswith(".json") else None
    try:
        return embedded.model_config_path(name.removeprefix("embedded/"))
    except ValueError as error:
        raise ValueError(f"backbone.model: {error}") from error


def _from_file(name: str, path: Path, preprocess: Mapping[str, object]) -> Architecture:
    try:
        config = parse_json(path.read_bytes(), "file")
    except (OSError, ValueError) as error:
        raise ValueError(f"backbone.model: {path}: cannot be read as a model configuration: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg") or {}, dict):
        raise ValueError(f"backbone.model: {path}: not an open_clip configuration: it must hold a mapping")
    model_cfg = config.get("model_cfg") or {k: v for k, v in config.items() if k != "preprocess_cfg"}
    if missing := [k for k in ("embed_dim", "vision_cfg", "text_cfg") if k not in model_cfg]:
        raise ValueError(f"backbone.model: {path}: not an open_clip configuration: it has no {missing[0]}")
    if wrong := [k for k in ("vision_cfg", "text_cfg") if not isinstance(model_cfg[k], dict)]:
        raise ValueError(f"backbone.model: {path}: {wrong[0]}: must be a mapping")
    vocabulary = path.with_name(f"bpe_{model_cfg['text_cfg'].get('vocab_size')}.txt.gz")
    kwargs = dict(model_cfg["text_cfg"].get("tokenizer_kwargs") or {})
    if "bpe_path" in kwargs:
        kwargs["bpe_path"] = str(path.parent / kwargs["bpe_path"])
    elif vocabulary.is_file():
        kwargs["bpe_path"] = str(vocabulary)
    if kwargs:
        model_cfg["text_cfg"]["tokenizer_kwargs"] = kwargs
    if trunk := timm_folder(path, model_cfg):
        if not (trunk / "config.json").is_file():
            raise ValueError(f"backbone.model: {path}: vision_cfg.timm_model_name: no file {trunk}/config.json")
        model_cfg["vision_cfg"]["timm_model_name"] = f"{TIMM_FOLDER}{trunk.resolve()}"
    with tempfile.TemporaryDirectory() as folder:
        # Through a folder in open_clip's format, so that open_clip chooses classes and defaults.
        whole = {"model_cfg": model_cfg, "preprocess_cfg": config.get("preprocess_cfg", {})}
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(whole))
        return _create(name, f"local-dir:{folder}", preprocess)


def timm_folder(path: Path, model_cfg: Mapping[str, Any]) -> Path | None:
    """Return the folder of timm's image tower that the model configuration at `path` names, if it names one."""
    name = model_cfg["vision_cfg"].get("timm_model_name") or ""
    return path.parent / name.removeprefix(TIMM_FOLDER) if name.startswith(TIMM_FOLDER) else None


def _create(name: str, identifier: str, preprocess: Mapping[str, object]) -> Architecture:
    with _random_weights_expected():
        model = open_clip.create_model(
            identifier, load_weights=False, pretrained_text=False, force_preprocess_cfg=dict(preprocess)
        )
        tokenizer = open_clip.get_tokenizer(identifier)
    rows, words = model.state_dict().get("token_embedding.weight"), getattr(tokenizer, "vocab_size", 0)
    if rows is not None and words > len(rows):
        raise ValueError(
            f"backbone.model: {name}: the tokenizer has {words} tokens and the text tower {len(rows)}: put the "
            f"vocabulary bpe_{len(rows)}.txt.gz next to the configuration"
        )
    return Architecture(name, model, tokenizer, Preprocess.from_config(open_clip.get_model_preprocess_cfg(model)))


@contextmanager
def _random_weights_expected() -> Iterator[None]:
    """Suppress open_clip's warning that the weights are random: they are loaded next."""

    def keep(record: logging.LogRecord) -> bool:
        return "weights" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def activation(module: nn.Module) -> str:
    """Return the activation of the blocks: "quick_gelu", "gelu", or "none" if the module has neither.

    Raises:
        ValueError: if it has both.
    """
    quick = open_clip.transformer.QuickGELU
    kinds = {"quick_gelu" if isinstance(m, quick) else "gelu" for m in module.modules() if _is_gelu(m)}
    if len(kinds) > 1:
        raise ValueError("activation: the module has both gelu and quick_gelu blocks")
    return kinds.pop() if kinds else "none"


def model_activation(model: nn.Module) -> str:
    """Return the activation of a CLIP's image tower; if that has neither, as a ResNet, of the text tower."""
    towers = nn.ModuleDict(dict(model.named_children()))
    image = activation(towers.pop("visual"))
    return image if image != "none" else activation(towers)


def _is_gelu(module: nn.Module) -> bool:
    return isinstance(module, open_clip.transformer.QuickGELU | nn.GELU) or type(module).__name__ == "GELU"


def check_activation(found: str, needed: str, model: str, why: str) -> None:
    """Refuse weights that need another activation than the architecture has.

    Raises:
        ValueError: if they differ; the architecture to use is named.
    """
    if found == needed:
        return
    other = model.removesuffix("-quickgelu") if model.endswith("-quickgelu") else f"{model}-quickgelu"
    quick = json.dumps(needed == "quick_gelu")
    use = (
        f"backbone.model: {other}"
        if other in open_clip.list_models()
        else f'"quick_gelu": {quick} in its configuration'
    )
    raise ValueError(f"backbone.model: {model} computes {found}, but {why} need {needed}; use {use}")


def tag_config(model: str, tag: str) -> Mapping[str, Any]:
    """Return open_clip's entry for pretrained weights: preprocessing, quick_gelu and location.

    Raises:
        ValueError: if `model` does not have the tag; near names are suggested.
    """
    config: Mapping[str, Any] = open_clip.get_pretrained_cfg(model, tag)
    if not config:
        known = open_clip.list_pretrained_tags_by_model(model)
        raise ValueError(f"backbone.options.pretrained: {model} has no tag {tag!r}; {near(tag, known)}")
    return config


def tag_activation(config: Mapping[str, Any]) -> str:
    """Return the activation of a tag's weights, or the one that a model configuration builds."""
    return "quick_gelu" if config.get("quick_gelu") else "gelu"


def pretrained_source(model: str, tag: str) -> str:
    """Return the local file of a pretrained tag's weights ("openai"), which open_clip downloads once.

    Raises:
        ValueError: if the tag is unknown, the weights need another activation than `model`'s, or the download fails.
    """
    config = tag_config(model, tag)
    found = tag_activation(open_clip.get_model_config(model) or {})
    check_activation(found, tag_activation(config), model, f"the weights of tag {tag!r}")
    if config.get("hf_hub") and hub_silence():
        return _cached(model, tag, config["hf_hub"])
    try:
        return str(open_clip.download_pretrained(config))
    except Exception as error:
        raise ValueError(
            f"{model}/{tag}: the weights cannot be downloaded: {error}; give a local file as `base`"
        ) from error


def _cached(model: str, tag: str, entry: str) -> str:
    """Return the file of open_clip's `entry`, REPOSITORY/ or REPOSITORY/FILE, in the hub's cache."""
    repo, file = entry.rsplit("/", 1)
    for name in [str(Path(file).with_suffix(".safetensors")), file] if file else _HUB_WEIGHTS:
        if isinstance(path := try_to_load_from_cache(repo, name), str):
            return path
    raise ValueError(f"{model}/{tag}: the weights ({repo}) are not in the local cache, and {out_of_reach()}")
