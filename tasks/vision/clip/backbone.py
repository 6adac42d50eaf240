"""The open_clip family: the image tower is edited, the text tower makes frozen heads.

Shape legend: B images, C, H, W channels, height and width, D embedding dimension, L tokens of a prompt.
"""

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tasks.base import LayerMap
from tasks.files.cache import digest
from tasks.lora import WeightPart
from tasks.registry import check_options
from tasks.vision.clip.activation import ActivationCheck
from tasks.vision.clip.architectures import OPTIONS, Architecture, activation, configured
from tasks.vision.clip.layouts import OPTIONAL, WRAPPERS, ClipState, to_open_clip, weight_parts
from tasks.vision.heads import Head, text_head
from tasks.vision.preprocess import Preprocess

logger = logging.getLogger(__name__)

#: Blocks of the image tower, in order of depth: open_clip's ViT, timm's ConvNeXt (stage, block), timm's ViT.
BLOCK_PATTERNS = (
    r"transformer\.resblocks\.(\d+)\.",
    r"trunk\.stages\.(\d+)\.blocks\.(\d+)\.",
    r"trunk\.blocks\.(\d+)\.",
)


class ClipText:
    """The text tower and logit scale of the base, float32 on the CPU."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
        """Keep the tower that `architecture.model` holds; `weights` are its tensors as the base's file has them."""
        self._model = architecture.model
        self._tokenizer = architecture.tokenizer
        self.weights = weights
        self.logit_scale = float(self._model.logit_scale.detach().exp())
        state = {k: v for k, v in self._model.state_dict().items() if not k.startswith("visual.")}
        names = [activation(_text_module(self._model)), *(f"{n} {list(t.shape)}" for n, t in state.items())]
        self.fingerprint = digest(chain(names, (t.numpy().tobytes() for t in state.values())))

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids of shape (len(prompts), L)."""
        return self._tokenizer(list(prompts))

    @torch.inference_mode()
    def encode(self, tokens_BL: Tensor) -> Tensor:
        """L2-normalised embeddings of shape (B, D)."""
        features: Tensor = self._model.encode_text(tokens_BL, normalize=True)
        return features


class OpenClipBackbone:
    """An image tower on a device, its preprocessing, and the base's text tower."""

    family = "open_clip"

    def __init__(
        self,
        architecture: Architecture,
        base: ClipState,
        device: torch.device,
        dtype: torch.dtype,
        said_activation: str | None = None,
    ) -> None:
        """Take the loaded `architecture`; `build` is the way to make one, and checks `said_activation`."""
        self.model_name = architecture.name
        self._check_activation = ActivationCheck(
            architecture.name, activation(architecture.model.visual), said_activation
        )
        self.preprocess: Preprocess = architecture.preprocess
        self.dtype = dtype
        self.text = ClipText(architecture, base.text)
        # Moved by itself: the rest of the model, the text tower, stays on the CPU in float32.
        self.module: nn.Module = architecture.model.visual.to(device, dtype).eval().requires_grad_(False)
        self.device = next(self.module.parameters()).device  # "cuda" has become "cuda:0", as tensors say it
        self.layer_map = layer_map(n for n, _ in self.module.named_parameters())
        self._shapes = {n: p.shape for n, p in self.module.named_parameters()}
        self._optional = {n: base.visual[n] for n in OPTIONAL & base.visual.keys()}

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select the image tower's tensors from a checkpoint of any layout in tasks/vision/clip/layouts.py; check all.

        Where Hugging Face's CLIPVisionModel ends before the projection, the base's projection is returned and a warning
        logged: the projection's task vector is then zero.

        Raises:
            ValueError: missing, unexpected or mis-shaped tensors, a text tower or logit scale other than the base's, or
                weights that need another activation.
        """
        found = to_open_clip(state, source)
        self._check_activation(source, found.hugging_face)
        if found.hugging_face:
            for name in self._optional.keys() - found.visual.keys():
                logger.warning("%s: has no %s, as CLIPVisionModel has none; the base's is kept", source, name)
            found = ClipState({**self._optional, **found.visual}, found.text, True)
        check_tensors(found.visual, self._shapes, source)
        _check_text(found.text, self.text.weights, source)
        return {name: found.visual[name] for name in self._shapes}

    def weight_parts(self, modules: Iterable[str], source: str) -> Mapping[str, WeightPart]:
        """Where the modules that a LoRA adapter names lie in the image tower: see tasks/vision/clip/layouts.py."""
        return weight_parts(modules, self._shapes, source)

    def head(self, class_names: Sequence[str], templates: Sequence[str]) -> Head:
        """The zero-shot head that the base's text tower makes of a task's class names and templates."""
        return text_head(self.text, class_names, templates)

    @torch.inference_mode()
    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Image features of uint8 images: float32 of shape (B, D), L2-normalised, on the backbone's device."""
        return self.embed(images_BCHW)

    def embed(self, images_BCHW: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """As `encode`, with gradients; under `parameters` (by the module's names) instead of its own where given."""
        pixels = self.preprocess.normalise(images_BCHW.to(self.device, non_blocking=True), self.dtype)
        with exact(self.device):
            features: Tensor = (
                self.module(pixels) if parameters is None else functional_call(self.module, dict(parameters), (pixels,))
            )
        return F.normalize(features.float(), dim=-1)


def build(
    model: str,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
) -> OpenClipBackbone:
    """Build the backbone with the base's weights.

    Args:
        model: see `tasks.vision.clip.architectures.create`.
        state: the base, with its text tower, in any layout of tasks/vision/clip/layouts.py.
        device: of the image tower.
        dtype: of the image tower's weights and activations; normalisation and logits are float32.
        options: see `tasks.vision.clip.architectures.configured`.

    Raises:
        ValueError: unknown model or option, weights that do not fit it, or that need another activation.
    """
    options = options or {}
    check_options("backbone.options", options, OPTIONS)
    architecture, said_activation = configured(model, options)
    base = to_open_clip(state, "base")
    _load(architecture, base)
    return OpenClipBackbone(architecture, base, device, dtype, said_activation)


def layer_map(names: Iterable[str]) -> LayerMap:
    """Depth of the image tower's parameters, by the first known pattern that matches.

    Raises:
        ValueError: no pattern matches, or the numbers leave a gap; parameters are named.
    """
    names = list(names)
    errors = []
    for pattern in BLOCK_PATTERNS:
        try:
            return LayerMap.from_pattern(names, pattern)
        except ValueError as error:
            if "matches none" not in str(error):
                raise
            errors.append(pattern)
    raise ValueError(
        f"backbone.model: no residual blocks like {errors} among {len(names)} parameters such as {names[:3]}"
    )


def _load(architecture: Architecture, base: ClipState) -> None:
    """Load the base's tensors into the model, all of them."""
    state = {f"visual.{n}": t for n, t in base.visual.items()} | base.text
    if isinstance(architecture.model, CustomTextCLIP):
        state = convert_to_custom_text_state_dict(state)
    shapes = {n: t.shape for n, t in architecture.model.state_dict().items()}
    if not any(name.startswith(("transformer.", "text.")) for name in base.text):
        raise ValueError(
            "base: holds an image tower only, or a text tower without its transformer, as the authors' .pt files do; "
            "the text tower is needed too, for the zero-shot heads: give the whole model, such as pretrained:openai"
        )
    check_tensors(state, shapes, "base")
    architecture.model.load_state_dict(state)
    architecture.model.eval().requires_grad_(False)


def check_tensors(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], source: str) -> None:
    """Refuse a state dict that is not exactly of these names and shapes.

    Raises:
        ValueError: missing, unexpected or mis-shaped tensors; the first names are given.
    """
    missing, extra = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    wrong = [
        f"{n} {list(state[n].shape)}, expected {list(s)}"
        for n, s in shapes.items()
        if n in state and state[n].shape != s
    ]
    problems = [
        f"{len(names)} {what} tensors ({'; '.join(names[:3])})"
        for what, names in (("missing", missing), ("unexpected", extra), ("mis-shaped", wrong))
        if names
    ]
    if problems:
        strange = f"; none of its names is known: prefixes that are taken off are {', '.join(WRAPPERS)}"
        hint = "" if shapes.keys() & state.keys() else strange
        raise ValueError(f"{source}: is no checkpoint of this architecture: {', '.join(problems)}{hint}")


def _check_text(text: Mapping[str, Tensor], base: Mapping[str, Tensor], source: str) -> None:
    """Heads are frozen: a text side that was trained too would be left out of the model without a word."""
    if unknown := sorted(text.keys() - base.keys()):
        raise ValueError(
            f"{source}: {len(unknown)} unexpected tensors outside the image tower ({'; '.join(unknown[:3])})"
        )
    if changed := sorted(n for n, t in text.items() if not _same(t, base[n])):
        raise ValueError(
            f"{source}: {len(changed)} tensors of the text tower differ from the base's ({'; '.join(changed[:3])}): "
            "heads are made by the base's text tower, so only models with a frozen one can be compared"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal in the less precise of the two dtypes: a float16 copy of a float32 tower is the same tower."""
    coarse = a.dtype if a.element_size() < b.element_size() else b.dtype
    return a.shape == b.shape and torch.equal(a.to(coarse), b.to(coarse))


def _text_module(model: Any) -> nn.Module:
    module: nn.Module = model.text if isinstance(model, CustomTextCLIP) else model.transformer
    return module


def exact(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On GPUs, convolutions use TF32 and whichever algorithm is fastest today, unless told not to."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
