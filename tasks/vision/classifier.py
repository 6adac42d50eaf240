"""open_clip image towers with a linear classification head: checkpoints of model soups, and plain classifiers.

The head was fine-tuned too, so it is merged and scaled with the tower, as a parameter outside the blocks. As in
the code of model soups (Wortsman et al. 2022), it is applied to L2-normalised features.

Shape legend: B images, D embedding dimension, N classes of the head, K classes of a task.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tasks.base import LayerMap
from tasks.batch_norm import without_buffers
from tasks.files.cache import digest
from tasks.kept_outputs import KEPT, encoder_memory
from tasks.registry import check_options, near
from tasks.vision.clip.activation import ActivationCheck
from tasks.vision.clip.architectures import OPTIONS, Architecture, activation, configured
from tasks.vision.clip.backbone import check_clip_tensors, exact, layer_map, load_whole
from tasks.vision.clip.first_block import FirstBlock, KeepsFirstBlock
from tasks.vision.clip.layouts import to_open_clip
from tasks.vision.heads import Head
from tasks.vision.libraries import open_clip
from tasks.vision.preprocess import Preprocess

_HEAD = re.compile(r"(?:\w+\.)*classification_head\.(weight|bias)")
#: The text tower, all or part of which the files of model soups hold.
_TEXT = re.compile(r"(token_embedding|ln_final|transformer|text)\..*|positional_embedding|text_projection|logit_scale")


class ImageClassifier(nn.Module):
    """An image tower and a linear layer on its normalised features."""

    def __init__(self, visual: nn.Module, features: int, classes: int) -> None:
        """Take the tower, whose features have `features` dimensions; the head's weights are random."""
        super().__init__()
        self.visual = visual
        self.classification_head = nn.Linear(features, classes)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return float32 logits (B, N); only the tower computes in lower precision."""
        return self.classify(self.visual(pixels_BCHW))

    def classify(self, features_BD: Tensor) -> Tensor:
        """Return the logits of the tower's features."""
        features_BD = F.normalize(features_BD.float(), dim=-1)
        head = self.classification_head
        return F.linear(features_BD, head.weight.float(), head.bias.float())


class ClassifierBackbone(KeepsFirstBlock):
    """A classifier on a device, with its preprocessing and the names of its classes."""

    family = "open_clip_classifier"

    def __init__(
        self,
        architecture: Architecture,
        classes: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        stated_activation: str | None = None,
        kept: float = KEPT,
    ) -> None:
        """Build the classifier of `classes` on the architecture's image tower, with random weights.

        `kept` are the GiB of activations to keep for later candidates.
        """
        self.model_name = architecture.name
        self.preprocess: Preprocess = architecture.preprocess
        self.dtype = dtype
        self.classes = tuple(classes)
        visual = architecture.model.visual
        self._check_activation = ActivationCheck(architecture.name, activation(visual), stated_activation)
        module = ImageClassifier(visual, _num_features(architecture), len(classes))
        self.module: nn.Module = module.to(device, dtype).eval().requires_grad_(False)
        self.first_block, self._classify = FirstBlock(visual, kept), module.classify
        self.device = next(self.module.parameters()).device
        towers = layer_map(name for name, _ in visual.named_parameters())
        self.layer_map = LayerMap({f"visual.{name}": i for name, i in towers.blocks.items()}, towers.num_blocks)
        self._shapes = {n: p.shape for n, p in self.module.named_parameters()}

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select image tower (in any layout of tasks/vision/clip/layouts.py) and `classification_head.{weight,bias}`.

        Tensors of a text tower do not change the logits and are ignored.

        Raises:
            ValueError: if there is no head, tensors are missing, unexpected or mis-shaped, or the weights need another
                activation.
        """
        tensors, hugging_face = _named(state, source)
        self._check_activation(source, hugging_face)
        check_clip_tensors(without_buffers(tensors, self.module), self._shapes, source)
        return {name: tensors[name] for name in self._shapes}

    def head(self, class_names: Sequence[str], templates: Sequence[str]) -> Head:
        """Return a head that selects the logits of a task's classes by name; templates are ignored.

        If the head has several classes of one name (ImageNet's list has "missile" and "sunglasses" twice), the task's
        classes of that name match them in order.

        Raises:
            ValueError: if the head lacks a class, or has fewer of that name; near names are suggested.
        """
        rows_of = defaultdict(list)
        for row, name in enumerate(self.classes):
            rows_of[name].append(row)
        rows, seen = [], dict.fromkeys(class_names, 0)
        for name in class_names:
            if seen[name] >= len(rows_of.get(name, ())):
                times = f" {seen[name] + 1} times" if seen[name] else ""
                raise ValueError(
                    f"backbone.options.classes: the head has no class {name!r}{times}; {near(name, self.classes)}"
                )
            rows.append(rows_of[name][seen[name]])
            seen[name] += 1
        weights_KN = F.one_hot(torch.tensor(rows), len(self.classes)).float()
        return Head(weights_KN, digest(["classification_head", str(len(self.classes)), *map(str, rows)]))

    @torch.inference_mode()
    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits of all the head's classes for uint8 images: float32 (B, N) on the backbone's device."""
        return self.embed(images_BCHW)

    def embed(self, images_BCHW: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Encode with gradients, under `parameters` (by the module's names) in place of its own if given."""
        with exact(self.device):
            logits: Tensor = functional_call(self.module, dict(parameters or {}), (self._pixels(images_BCHW),))
        return logits

    @torch.inference_mode()
    def encode_batch(self, images_BCHW: Tensor, batch: Hashable) -> Tensor:
        """Encode a batch; what enters the second block is kept: see `tasks.vision.classification.ReusesBatches`."""
        with exact(self.device):
            return self._classify(self.first_block.features(lambda: self._pixels(images_BCHW), batch))

    def _pixels(self, images_BCHW: Tensor) -> Tensor:
        return self.preprocess.normalise(images_BCHW.to(self.device, non_blocking=True), self.dtype)


def build(
    model: str,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
) -> ClassifierBackbone:
    """Build the classifier with the base's weights.

    Args:
        model: see `tasks.vision.clip.architectures.create`; its text tower is not used.
        state: the base: an image tower and its head, for example the linear probe of model soups (`model_0.pt`).
        device: of the model.
        dtype: of the tower's weights and activations; features, head and logits are float32.
        options: see `tasks.vision.clip.architectures.configured`; and `classes`, the head's class names in order, or
            "imagenet" for open_clip's list of 1,000; `encoder_memory`, as in `tasks.vision.clip.backbone.build`.

    Raises:
        ValueError: if the model or an option is unknown, or the weights do not fit it.
    """
    options = options or {}
    check_options("backbone.options", options, (*OPTIONS, "classes", "encoder_memory"))
    kept = encoder_memory(options.get("encoder_memory", KEPT))
    classes = _classes(options.get("classes"))
    architecture, stated_activation = configured(model, options)
    backbone = ClassifierBackbone(architecture, classes, device, dtype, stated_activation, kept)
    tensors, _ = _named(state, "base")
    if (found := tensors["classification_head.weight"].shape[0]) != len(classes):
        raise ValueError(f"backbone.options.classes: names {len(classes)} classes, but the base's head has {found}")
    load_whole(backbone.module, tensors)
    return backbone


def _named(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], bool]:
    """Rename tower and head to the module's names; return whether the tower had Hugging Face's, too."""
    head = {f"classification_head.{m[1]}": t for n, t in state.items() if (m := _HEAD.fullmatch(n))}
    if "classification_head.weight" not in head:
        raise ValueError(
            f"{source}: has no classification_head.weight, so it is not a classifier; for a CLIP whose text tower "
            "makes the heads, set backbone.family: open_clip"
        )
    found = to_open_clip({n: t for n, t in state.items() if not _HEAD.fullmatch(n)}, source)
    if strange := sorted(n for n in found.text if not _TEXT.fullmatch(n)):
        raise ValueError(f"{source}: {len(strange)} unexpected tensors ({'; '.join(strange[:3])})")
    return {f"visual.{n}": t for n, t in found.visual.items()} | head, found.hugging_face


def _classes(value: object) -> Sequence[str]:
    """Return the class names of `backbone.options.classes`."""
    if value == "imagenet":
        return list(open_clip.IMAGENET_CLASSNAMES)
    if isinstance(value, list) and len(value) > 1 and all(isinstance(name, str) for name in value):
        return value
    got = "nothing" if value is None else repr(value)
    raise ValueError(
        "backbone.options.classes: must be the names of the head's classes in their order, two or more, or imagenet; "
        f"got {got}"
    )


@torch.inference_mode()
def _num_features(architecture: Architecture) -> int:
    """Return the dimensions of the tower's features, measured because towers have no common attribute for it."""
    height, width = architecture.preprocess.size
    features: Tensor = architecture.model.visual.eval()(torch.zeros(1, 3, height, width))
    return features.shape[1]
