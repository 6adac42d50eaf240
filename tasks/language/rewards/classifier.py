"""Any Hugging Face sequence classifier as a reward: one label's logit or probability.

Shape legend: N samples, B of a batch, K labels.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tasks.files.cache import digest
from tasks.language.base import Prompt, Sample
from tasks.language.rewards.config import RewardConfig
from tasks.language.rewards.files import folder_fingerprint, read_fast_tokenizer, read_model, reward_folder
from tasks.language.rewards.texts import Form, SampleTokenizer, Tokens, batches, token_limit
from tasks.registry import near

logger = logging.getLogger(__name__)

#: Two inputs of different lengths, to see whether padding changes a score.
_PROBES = (Sample(Prompt("a", "a"), "a"), Sample(Prompt("a b c d", "a b c d"), "a b"))
_TOLERANCE = 1e-3


class Classifier(RewardConfig):
    """Options of `reward/classifier`."""

    model: str
    """A folder, or hf:OWNER/REPO, with the classifier and its own tokenizer."""
    label: str | int | None = None
    """The output that is the reward, by name or index; optional if there is only one."""
    minus: str | int | None = None
    """A label whose logit is subtracted; with two labels this gives the log odds."""
    inputs: Form = "pair"
    """pair: source and completion as two sequences; completion: the completion alone; or a template of {source},
    {completion} and {prompt} (the whole prompt), which may hold special tokens."""
    first_sentence: bool = False
    """Score the completion up to its first full stop."""
    probability: bool = False
    """Softmax over the labels, or the sigmoid of a single label, in place of the logit."""
    max_length: int | None = Field(None, ge=1)
    """The longest input in tokens; the source is cut, the completion never. By default all that the model takes."""
    batch_size: int = Field(32, ge=1)
    """Samples a batch."""

    @model_validator(mode="after")
    def _one_scale(self) -> "Classifier":
        if self.probability and self.minus is not None:
            raise ValueError("probability: must be left out if minus is given, which makes a difference of logits")
        return self

    def fingerprint(self) -> str:
        """Hash the model's files and the options, without their folder and the batch size."""
        options = self.model_dump_json(exclude={"model", "batch_size"})
        return digest(["classifier", folder_fingerprint(reward_folder(self.model)), options])

    def load(self, device: torch.device) -> "ClassifierReward":
        """Read the classifier; see `ClassifierReward` for errors."""
        return ClassifierReward(self, device)


class ClassifierReward:
    """A sequence classifier on its device, in float32."""

    def __init__(self, config: Classifier, device: torch.device) -> None:
        """Read model and tokenizer, and find the label.

        Raises:
            ValueError: if the folder or the trained head is missing, a label is unknown, or `max_length` is too long.
        """
        self.fingerprint = config.fingerprint()
        self._config = config
        self._model = read_model(AutoModelForSequenceClassification, config.model, device)
        self._tokenizer = read_fast_tokenizer(config.model)
        self._names = {int(index): name for index, name in (self._model.config.id2label or {}).items()}
        self._label = _label("label", config.label, self._names)
        self._minus = None if config.minus is None else _label("minus", config.minus, self._names)
        limit = token_limit(self._tokenizer, self._model, config.max_length)
        self._encoder = SampleTokenizer(self._tokenizer, config.inputs, limit)
        self.batch_size = config.batch_size if config.batch_size > 1 and self._can_pad() else 1

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Return the label's output for each sample.

        Raises:
            ValueError: if a completion is longer than the model takes.
        """
        if self._config.first_sentence:
            samples = [Sample(s.prompt, s.completion.split(".")[0] + ".") for s in samples]
        logits_NK = self._logits(self._encoder.encode(samples), self.batch_size)
        return [float(score) for score in self._chosen(logits_NK)]

    def _chosen(self, logits_NK: Tensor) -> Tensor:
        if self._config.probability:
            one = logits_NK.shape[1] == 1
            return (logits_NK.sigmoid() if one else logits_NK.softmax(dim=1))[:, self._label]
        scores_N = logits_NK[:, self._label]
        return scores_N if self._minus is None else scores_N - logits_NK[:, self._minus]

    @torch.inference_mode()
    def _logits(self, tokens: Sequence[Tokens], batch_size: int) -> Tensor:
        """Return logits (N, K) on the CPU, in the order of `tokens`."""
        logits_NK = torch.empty(len(tokens), len(self._names))
        for indices in batches([len(t["input_ids"]) for t in tokens], batch_size):
            batch: Any = [dict(tokens[i]) for i in indices]
            padded = self._tokenizer.pad(batch, return_tensors="pt") if len(batch) > 1 else _alone(batch[0])
            moved = {name: value.to(self._model.device) for name, value in padded.items()}
            logits_NK[indices] = self._model(**moved).logits.float().cpu()
        return logits_NK

    def _can_pad(self) -> bool:
        """Return whether batches score as single samples do; if not, restore model and tokenizer.

        Decoders like GPT-2 score at the last token that is not padding. If their configuration has no pad token, this
        tries the tokenizer's, or its end-of-sequence token, which is right unless inputs end with that token.
        """
        model, tokenizer = self._model, self._tokenizer
        probes = self._encoder.encode(_PROBES)
        alone = self._logits(probes, 1)
        before = (model.config.pad_token_id, tokenizer.pad_token)
        if _name_pad_token(model, tokenizer):
            together = self._logits(probes, len(probes))
            if torch.allclose(alone, together, rtol=_TOLERANCE, atol=_TOLERANCE):
                return True
        model.config.pad_token_id, tokenizer.pad_token = before
        logger.warning("%s: padding would change its scores, so it scores samples one by one", self._config.model)
        return False


def _name_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Give model and tokenizer the same pad token; return whether the model has an embedding for it."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    table = model.get_input_embeddings()
    pad = tokenizer.pad_token_id
    return isinstance(pad, int) and isinstance(table, nn.Embedding) and pad < table.num_embeddings


def _alone(tokens: Tokens) -> dict[str, Tensor]:
    return {name: torch.tensor([values]) for name, values in tokens.items()}


def _label(option: str, wanted: str | int | None, names: Mapping[int, str]) -> int:
    """Return the index of a label.

    Raises:
        ValueError: if the label does not exist, or there are several and none is named.
    """
    shown = ", ".join(f"{name} ({index})" for index, name in sorted(names.items()))
    if wanted is None:
        if len(names) > 1:
            raise ValueError(f"options.{option}: is required: the model has the labels {shown}")
        return 0
    if isinstance(wanted, int):
        if wanted not in names:
            raise ValueError(f"options.{option}: must be one of {shown}, got {wanted}")
        return wanted
    if wanted not in names.values():
        raise ValueError(f"options.{option}: no label {wanted!r}; {near(wanted, names.values())}; all: {shown}")
    return next(index for index, name in names.items() if name == wanted)
