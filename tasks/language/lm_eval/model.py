"""lm-eval's own model class around the module that a worker holds."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tasks.base import NonFiniteOutput
from tasks.language.models import model_folder

logger = logging.getLogger(__name__)


class ResidentModel(HFLM):  # type: ignore[misc]
    """The resident module, whose weights are edited in place: nothing is loaded, copied or cached."""

    def __init__(self, name: str, backbone: Any, batch_size: int) -> None:
        """Wrap a language backbone's module for the task `name`; the tokenizer is copied, as lm-eval may change it."""
        tokenizer = copy.deepcopy(backbone.tokenizer)
        with _ties_kept(backbone.module):
            super().__init__(backbone.module, backend=backbone.family, tokenizer=tokenizer, batch_size=batch_size)
        self._generation = _generation_config(backbone)
        self._name, self._warned = name, False

    def _loglikelihood_tokens(self, requests: Sequence[Any], **options: Any) -> list[tuple[float, bool]]:
        """Score as HFLM does, without its progress bar."""
        # A causal model reads all tokens but the last.
        lengths = [len(prompt) + (len(rest) - 1) * (self.backend == "causal") for _, prompt, rest in requests]
        self._note_cut(sum(length > self.max_length for length in lengths), len(requests), self.max_length)
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **{**options, "disable_tqdm": True})
        return found

    def tok_batch_encode(
        self, strings: list[str], padding_side: str = "left", left_truncate_len: int | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T) and their mask, cut on the left as HFLM does."""
        tokens_BT, mask_BT = super().tok_batch_encode(strings, padding_side, **options)
        if left_truncate_len is not None:
            self._note_cut(int((mask_BT.sum(1) > left_truncate_len).sum()), len(strings), left_truncate_len)
            tokens_BT, mask_BT = tokens_BT[:, -left_truncate_len:], mask_BT[:, -left_truncate_len:]
        return tokens_BT, mask_BT

    def _note_cut(self, count: int, of: int, most: int) -> None:
        """Warn of prompts that do not fit, once: each candidate gets the same prompts."""
        if count and not self._warned:
            self._warned = True
            logger.warning(
                "tasks.%s: %d of %d prompts have more than the %d tokens that fit the model's context: lm-eval cuts "
                "them on the left",
                self._name,
                count,
                of,
                most,
            )

    @torch.no_grad()
    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        """Return logits as HFLM does; its switch for mixed precision, which is off, fails on the meta device."""
        if labels is None:
            return self.model(inps).logits
        return self.model(input_ids=inps, attention_mask=attn_mask, labels=labels).logits

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Any:
        """Generate as HFLM does, with the settings of the model's folder; refuse non-finite logits."""
        if self.device.type == "meta":  # a generation ends where it needs a token; the prompts take the memory
            return self._model_call(context, labels=context if self.backend == "seq2seq" else None)
        held, self.model.generation_config = self.model.generation_config, self._generation
        try:
            checked = LogitsProcessorList([_Checked()])
            return super()._model_generate(context, max_length, stop, logits_processor=checked, **options)
        finally:
            self.model.generation_config = held


class _Checked(LogitsProcessor):
    """Refuses NaN and infinity, but not the minus infinity by which a model's settings exclude tokens."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        excluded = scores.isneginf()
        if not bool((scores.isfinite() | excluded).all()) or bool(excluded.all(-1).any()):
            raise NonFiniteOutput("generation: non-finite logits (NaN or infinity)")
        return scores


@contextmanager
def _ties_kept(module: nn.Module) -> Iterator[None]:
    """Let lm-eval tie no weights: those of a checkpoint may differ where its configuration ties them."""
    module.tie_weights = lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        del module.tie_weights


def generation_file(backbone: Any) -> Path | None:
    """Return the settings of generation in a model's folder, which lm-eval reads; None if there are none."""
    path = model_folder(backbone.model_name) / "generation_config.json"
    return path if path.is_file() else None


def _generation_config(backbone: Any) -> GenerationConfig:
    if file := generation_file(backbone):
        return GenerationConfig.from_pretrained(file.parent)
    own: GenerationConfig = copy.deepcopy(backbone.module.generation_config)
    return own
