"""Heads over an encoder: embeddings of prompts, or a fine-tuned classifier's own.

Shape legend: B texts, T their tokens, D hidden size, K classes.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tasks.files.cache import digest
from tasks.language.encoder import EncoderBackbone, PromptTower, tensor_bytes
from tasks.language.models import check_config, model_folder, read_files, without_progress_bars
from tasks.vision.heads import text_head

#: Fields of a configuration on which no logit depends.
_ELSEWHERE = ("_name_or_path", "architectures", "dtype", "transformers_version")

Inputs = Mapping[str, Tensor]


class SentenceHead(Protocol):
    """A frozen classifier on an encoder whose weights change."""

    classes: tuple[str, ...]
    key: str
    """Content hash of all that it computes besides the encoder."""

    def logits(self, inputs: Inputs) -> Tensor:
        """Return float32 logits (B, K) of a batch under the encoder's current weights."""
        ...


class PromptHead:
    """Cosines of a text's embedding with the base's embeddings of class names in templates."""

    def __init__(
        self, backbone: EncoderBackbone, classes: Sequence[str], templates: Sequence[str], longest: int
    ) -> None:
        """Embed the prompts; the backbone must hold the base.

        Args:
            backbone: which the head is used with.
            classes: their names.
            templates: texts with one {} each.
            longest: the most tokens of a prompt; longer ones are cut.

        Raises:
            SamePrompts: if two classes have the same tokens in every template.
        """
        tokenizer: Any = backbone.tokenizer
        prompts = [template.replace("{}", name) for name in classes for template in templates]
        tokens = min(longest, max(map(len, tokenizer(prompts, verbose=False)["input_ids"])))
        head = text_head(PromptTower(backbone, tokens), classes, templates)
        self.classes, self.key, self.warnings = tuple(classes), head.key, head.warnings()
        self._backbone, self._weights_KD = backbone, head.weights_KD.to(backbone.device)

    def logits(self, inputs: Inputs) -> Tensor:
        """Return logits (B, K): see `SentenceHead`."""
        features_BD = self._backbone.embed(inputs)
        with torch.autocast(features_BD.device.type, enabled=False):  # training may reduce the encoder's precision
            return features_BD @ self._weights_KD.T


class OwnHead:
    """The head of a fine-tuned classifier, on the encoder in place of the classifier's own.

    Attributes:
        model: the classifier around the backbone's modules.
    """

    def __init__(self, backbone: EncoderBackbone, source: str, model: PreTrainedModel | None = None) -> None:
        """Read the classifier, and give its encoder the backbone's weights.

        Args:
            backbone: which the head is used with.
            source: a folder, or hf:OWNER/REPO, of a sequence classifier.
            model: the classifier, if there is no folder of it yet; `source` then names it in errors.

        Raises:
            ValueError: if it is none, its head is missing, or its encoder is of another architecture.
        """
        model = model or _read(source)
        body: Any = model.base_model
        try:
            shared = backbone.shared_with(body)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        setattr(model, model.base_model_prefix, shared)
        self.model = model.requires_grad_(False).train(False).to(backbone.device, backbone.dtype)
        names: Any = model.config.id2label
        self.classes = tuple(str(names[i]) for i in range(len(names)))
        edited = {id(p) for p in backbone.module.parameters()}
        own = {name: p for name, p in model.named_parameters() if id(p) not in edited}
        config = {name: value for name, value in model.config.to_diff_dict().items() if name not in _ELSEWHERE}
        tensors = (part for name, p in own.items() for part in (name, tensor_bytes(p)))
        self.key = digest(["own head", json.dumps(config, sort_keys=True, default=str), *tensors])

    def logits(self, inputs: Inputs) -> Tensor:
        """Return logits (B, K): see `SentenceHead`."""
        logits: Tensor = self.model(**inputs).logits
        return logits.float()


def new_classifier(backbone: EncoderBackbone, classes: Sequence[str], seed: int) -> PreTrainedModel:
    """Return a classifier of the backbone's architecture with a random head, whose encoder is still random too.

    Args:
        backbone: gives the configuration.
        classes: their names.
        seed: of the head.

    Raises:
        ValueError: if transformers has no classifier of this architecture.
    """
    config: Any = copy.deepcopy(backbone.module.config)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory: Any = AutoModelForSequenceClassification  # its functions have no types
        made = read_files(backbone.model_name, lambda: factory.from_config(config))
    assert isinstance(made, PreTrainedModel)
    return made


def _read(source: str) -> PreTrainedModel:
    folder = model_folder(source)
    check_config(source, folder)
    with without_progress_bars():
        found: Any = read_files(
            source,
            lambda: AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False, weights_only=True, output_loading_info=True
            ),
        )
    model, report = found
    body = f"{model.base_model_prefix}."
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(body)):
        raise ValueError(
            f"{source}: is no classifier: its head's {missing[0]} is missing; give the fine-tuned classifier, saved "
            "with its head"
        )
    if model.config.num_labels < 2:
        raise ValueError(f"{source}: must have two labels or more, got {model.config.num_labels}")
    assert isinstance(model, PreTrainedModel)
    return model
