"""The open_clip family: the image tower is edited, the text tower makes frozen heads.

Shape legend: B images, C, H, W channels, height and width, D embedding dimension, L tokens of a prompt.
"""

import contextlib
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tasks.base import LayerMap
from tasks.batch_norm import is_counter, without_buffers
from tasks.block_names import IMAGE_TOWERS, recognise
from tasks.files.cache import digest
from tasks.kept_outputs import KEPT, encoder_memory
from tasks.lora import WeightPart
from tasks.registry import check_options
from tasks.stacks import find_stacks
from tasks.tensors import check_tensors
from tasks.vision.clip.activation import ActivationCheck
from tasks.vision.clip.architectures import OPTIONS, Architecture, activation, configured, model_activation
from tasks.vision.clip.first_block import FirstBlock, KeepsFirstBlock
from tasks.vision.clip.layouts import OPTIONAL, ClipState, to_open_clip, weight_parts
from tasks.vision.heads import Head, text_head
from tasks.vision.libraries import open_clip
from tasks.vision.preprocess import Preprocess

logger = logging.getLogger(__name__)


_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class ClipText:
    """The base's text tower and logit scale, float32 on the CPU."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
        """Take the tower of `architecture.model`; `weights` are its tensors as in the base's file."""
        self._model = architecture.model
        self._tokenizer = architecture.tokenizer
        self.weights = weights
        self.logit_scale = float(self._model.logit_scale.detach().exp())
        state = {k: v for k, v in self._model.state_dict().items() if not k.startswith("visual.")}
        names = [activation(_text_module(self._model)), *(f"{n} {list(t.shape)}" for n, t in state.items())]
        self.fingerprint = digest(chain(names, (t.numpy().tobytes() for t in state.values())))

    def tokenize(self, prompts: Sequence[str], longer: int = 0) -> Tensor:
        """Return token ids of shape (len(prompts), L + longer); longer prompts are cut, shorter ones padded."""
        tokens = self._tokenizer(list(prompts))
        return self._tokenizer(list(prompts), context_length=tokens.shape[1] + longer) if longer else tokens

    @torch.inference_mode()
    def encode(self, tokens_BL: Tensor) -> Tensor:
        """Return L2-normalised embeddings of shape (B, D)."""
        features: Tensor = self._model.encode_text(tokens_BL, normalize=True)
        return features


class OpenClipBackbone(KeepsFirstBlock):
    """An image tower on a device, its preprocessing, and the base's text tower."""

    family = "open_clip"

    def __init__(
        self,
        architecture: Architecture,
        base: ClipState,
        device: torch.device,
        dtype: torch.dtype,
        stated_activation: str | None = None,
        kept: float = KEPT,
    ) -> None:
        """Take a loaded `architecture`; use `build` to make a backbone from weights.

        `kept` are the GiB of activations to keep for later candidates.
        """
        self.model_name = architecture.name
        self._check_activation = ActivationCheck(
            architecture.name, model_activation(architecture.model), stated_activation
        )
        self.preprocess: Preprocess = architecture.preprocess
        self.dtype = dtype
        self.text = ClipText(architecture, base.text)
        # Only the image tower moves; the text tower stays on the CPU in float32.
        self.module: nn.Module = architecture.model.visual.to(device, dtype).eval().requires_grad_(False)
        self.device = next(self.module.parameters()).device  # "cuda" becomes "cuda:0", as on tensors
        self.layer_map = layer_map(n for n, _ in self.module.named_parameters())
        self._shapes = {n: p.shape for n, p in self.module.named_parameters()}
        self._optional = {n: base.visual[n] for n in OPTIONAL & base.visual.keys()}
        self.first_block = FirstBlock(self.module, kept)

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select and check the image tower's tensors of a checkpoint, in any layout of tasks/vision/clip/layouts.py.

        Hugging Face's CLIPVisionModel ends before the projection. The base's projection is then returned, with a
        warning, so that its task vector is zero.

        Raises:
            ValueError: if tensors are missing, unexpected or mis-shaped, the text tower or logit scale is not the
                base's, or the weights need another activation.
        """
        found = to_open_clip(state, source)
        self._check_activation(source, found.hugging_face)
        if found.hugging_face:
            for name in self._optional.keys() - found.visual.keys():
                logger.warning("%s: has no %s, like every CLIPVisionModel; the base's is used", source, name)
            found = ClipState({**self._optional, **found.visual}, found.text, True)
        check_clip_tensors(without_buffers(found.visual, self.module), self._shapes, source)
        _check_text(found.text, self.text.weights, source)
        return {name: found.visual[name] for name in self._shapes}

    def weight_parts(self, modules: Iterable[str], source: str) -> Mapping[str, WeightPart]:
        """Find the weights that a LoRA adapter changes: see `tasks.vision.clip.layouts.weight_parts`."""
        return weight_parts(modules, self._shapes, source)

    def head(self, class_names: Sequence[str], templates: Sequence[str]) -> Head:
        """Make the zero-shot head of a task's class names and templates with the base's text tower."""
        return text_head(self.text, class_names, templates)

    @torch.inference_mode()
    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Return L2-normalised features of uint8 images: float32 (B, D) on the backbone's device."""
        return self.embed(images_BCHW)

    @torch.inference_mode()
    def encode_batch(self, images_BCHW: Tensor, batch: Hashable) -> Tensor:
        """Encode a batch; what enters the second block is kept: see `tasks.vision.classification.ReusesBatches`."""
        with exact(self.device):
            features = self.first_block.features(lambda: self._pixels(images_BCHW), batch)
        return F.normalize(features.float(), dim=-1)

    def embed(self, images_BCHW: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Encode with gradients, under `parameters` (by the module's names) in place of its own if given."""
        pixels = self._pixels(images_BCHW)
        with exact(self.device):
            features: Tensor = (
                self.module(pixels) if parameters is None else functional_call(self.module, dict(parameters), (pixels,))
            )
        return F.normalize(features.float(), dim=-1)

    def _pixels(self, images_BCHW: Tensor) -> Tensor:
        return self.preprocess.normalise(images_BCHW.to(self.device, non_blocking=True), self.dtype)


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
        options: see `tasks.vision.clip.architectures.configured`; and `encoder_memory`, GiB of activations to keep for
            later candidates, which changes no score.

    Raises:
        ValueError: if the model or an option is unknown, or the weights do not fit it or need another activation.
    """
    options = options or {}
    check_options("backbone.options", options, (*OPTIONS, "encoder_memory"))
    kept = encoder_memory(options.get("encoder_memory", KEPT))
    architecture, stated_activation = configured(model, options)
    base = to_open_clip(state, "base")
    _load(architecture, base)
    return OpenClipBackbone(architecture, base, device, dtype, stated_activation, kept)


def layer_map(names: Iterable[str]) -> LayerMap:
    """Number the image tower's blocks by the same layouts as `lines merge`.

    Args:
        names: of the tower's parameters, without `visual.`.

    Raises:
        ValueError: if no layout matches, or the numbers leave a gap; parameters are named.
    """
    names = list(names)
    whole = [f"visual.{name}" for name in names]
    found = recognise(IMAGE_TOWERS, whole, find_stacks(whole))
    if len(found) != 1:
        known = ", ".join(layout.description for layout in IMAGE_TOWERS)
        raise ValueError(
            f"backbone.model: no residual blocks of a known layout ({known}) among {len(names)} parameters, for "
            f"example {names[:3]}"
        )
    layers = found[0].layer_map(whole)
    return LayerMap({name.removeprefix("visual."): i for name, i in layers.blocks.items()}, layers.num_blocks)


def _load(architecture: Architecture, base: ClipState) -> None:
    """Load all of the base's tensors into the model."""
    state = {f"visual.{n}": t for n, t in base.visual.items()} | base.text
    if isinstance(architecture.model, open_clip.CustomTextCLIP):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    if not any(name.startswith(("transformer.", "text.")) for name in base.text):
        raise ValueError(
            "base: holds an image tower only, or a text tower without its transformer, like the authors' .pt files; "
            "the zero-shot heads need the text tower: give the whole model, for example pretrained:openai"
        )
    load_whole(architecture.model, state)
    architecture.model.eval().requires_grad_(False)


def load_whole(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check and load all of the base's tensors; counters of batches may be missing."""
    own: dict[str, Tensor] = module.state_dict()
    counters = {name: tensor for name, tensor in own.items() if is_counter(name)}
    shapes = {name: tensor.shape for name, tensor in own.items() if name not in counters}
    check_clip_tensors({name: t for name, t in state.items() if name not in counters}, shapes, "base")
    module.load_state_dict({**counters, **state})


def check_clip_tensors(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], source: str) -> None:
    """Check names and shapes: see `check_tensors`. If no name is known, the error gives what would be."""
    unknown = "; none of its names is known: only a prefix that all names share is removed"
    check_tensors(state, shapes, source, hint="" if shapes.keys() & state.keys() else unknown)


def _check_text(text: Mapping[str, Tensor], base: Mapping[str, Tensor], source: str) -> None:
    """Refuse a text tower that is not the base's: heads are made by the base's, so its training would be lost."""
    if unknown := sorted(text.keys() - base.keys()):
        raise ValueError(
            f"{source}: {len(unknown)} unexpected tensors outside the image tower ({'; '.join(unknown[:3])})"
        )
    if changed := sorted(n for n, t in text.items() if not _same(t, base[n])):
        raise ValueError(
            f"{source}: {len(changed)} tensors of the text tower differ from the base's ({'; '.join(changed[:3])}): "
            "the base's text tower makes the heads, so experts must have been trained with it frozen"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    """Compare in the less precise of the two dtypes: a float16 copy of a float32 tower is the same tower.

    A float8 copy comes as bfloat16: it is the same if rounding the other to float8 gives exactly its numbers.
    """
    coarse = a.dtype if a.element_size() < b.element_size() else b.dtype
    if a.shape != b.shape:
        return False
    if torch.equal(a.to(coarse), b.to(coarse)):
        return True
    return torch.bfloat16 in (a.dtype, b.dtype) and any(
        torch.equal(a.to(kind).float(), b.to(kind).float()) and (_exact(a, kind) or _exact(b, kind)) for kind in _FLOAT8
    )


def _exact(tensor: Tensor, kind: torch.dtype) -> bool:
    return torch.equal(tensor.to(kind).float(), tensor.float())


def _text_module(model: Any) -> nn.Module:
    module: nn.Module = model.text if isinstance(model, open_clip.CustomTextCLIP) else model.transformer
    return module


def exact(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Make convolutions on GPUs deterministic float32; by default they use TF32 and the currently fastest algorithm."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
