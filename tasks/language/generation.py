"""Completions by transformers' `generate`, each determined by its prompt and seed alone, up to rounding.

Sampling uses the Gumbel-max trick (Gumbel, 1954; Maddison et al., 2014): the largest of logits / temperature + Gumbel
noise is a draw from softmax(logits / temperature). Each completion has its own noise generator on the CPU, seeded by
the run, the prompt and the draw, so batch, shard and device do not matter. All candidates get the same noise: they are
compared under common random numbers.

Shape legend: B prompts of a batch, T their tokens, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from tasks.errors import NonFiniteOutput
from tasks.files.cache import digest
from tasks.language.base import Decoding, Prompt


def sample_seed(decoding: Decoding, prompt: Prompt, draw: int) -> int:
    """Return a completion's seed: 63 bits of blake2b over the run's seed, the prompt's text and the draw."""
    return int(digest([str(decoding.seed), prompt.text, str(draw)])[:16], 16) >> 1


class TransformersEngine:
    """Greedy decoding or sampling with the module's current weights.

    Attributes:
        tokens: number of tokens generated so far, ends of sequences included.
    """

    def __init__(self, module: nn.Module, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        """Take a causal model of transformers on `device`, and its tokenizer (see `models.load_tokenizer`)."""
        self._module: Any = module
        self._tokenizer, self._device = tokenizer, device
        self.tokens = 0

    @torch.inference_mode()
    def complete(self, prompts: Sequence[Prompt], draws: Sequence[int], decoding: Decoding) -> list[str]:
        """See `tasks.language.base.Engine`.

        Raises:
            NonFiniteOutput: if a logit is NaN or infinite.
        """
        # Otherwise the model's recommendations (a repetition penalty, forced tokens) would fill our unset fields.
        recommended, self._module.generation_config = self._module.generation_config, _ours()
        try:
            pairs, size = list(zip(prompts, draws, strict=True)), decoding.batch_size
            batches = [pairs[start : start + size] for start in range(0, len(pairs), size)]
            return [text for batch in batches for text in self._batch(batch, decoding)]
        finally:
            self._module.generation_config = recommended

    def _batch(self, batch: Sequence[tuple[Prompt, int]], decoding: Decoding) -> list[str]:
        pad = self._tokenizer.pad_token_id
        inputs = self._tokenizer(
            [prompt.text for prompt, _ in batch], padding=True, padding_side="left", return_tensors="pt"
        ).to(self._device)
        processors: list[LogitsProcessor] = [Finite()]
        if decoding.temperature > 0:
            seeds = [sample_seed(decoding, prompt, draw) for prompt, draw in batch]
            processors.append(_Gumbel(decoding.temperature, seeds))
        tokens_BT = self._module.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_config=_ours(
                max_new_tokens=decoding.max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=pad,
                eos_token_id=self._tokenizer.eos_token_id,
            ),
            logits_processor=LogitsProcessorList(processors),
        )
        new_BT = tokens_BT[:, inputs["input_ids"].shape[1] :].cpu()
        self.tokens += int((new_BT != pad).sum())
        return [self._text(row) for row in new_BT.tolist()]

    def _text(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text.strip()


def _ours(**fields: object) -> GenerationConfig:
    return GenerationConfig(**fields)  # type: ignore[no-untyped-call]


class Finite(LogitsProcessor):
    """Refuses non-finite logits, of which `argmax` would silently choose token 0."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits as they are.

        Raises:
            NonFiniteOutput: if one is NaN or infinite.
        """
        if not bool(scores.isfinite().all()):
            raise NonFiniteOutput("generation: non-finite logits (NaN or infinity)")
        return scores


class _Gumbel(LogitsProcessor):
    """Adds Gumbel noise to logits / temperature, each row from its own generator."""

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # float64, because 1 in 2^24 uniform float32 numbers is 0: once in a few hundred tokens of 50,000 words.
        noise_BV = torch.empty(scores.shape, dtype=torch.float64)
        for row, generator in zip(noise_BV, self._generators, strict=True):
            torch.rand(row.shape, generator=generator, dtype=row.dtype, out=row)
        gumbel_BV = noise_BV.log_().neg_().log_().neg_()
        return scores / self._temperature + gumbel_BV.to(scores.device, scores.dtype)
