"""Completions by vLLM, if it is installed: the SFT model stays loaded, and a candidate is a LoRA adapter.

Experimental: it has not run on a GPU yet.

vLLM chooses its own batches, so a completion may change with its neighbours if two tokens are almost equally probable;
`generation.TransformersEngine` avoids this.

Shape legend: O rows (outputs) of a weight, I its columns (inputs), R rank.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tasks.language.base import Decoding, Prompt
from tasks.language.generation import sample_seed

#: Values of vLLM's max_lora_rank.
_MAX_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class VllmEngine:
    """An `Engine` that holds the SFT model and one candidate at a time."""

    def __init__(self, folder: Path, max_rank: int, seed: int = 0) -> None:
        """Load the SFT model of `folder`, for candidates of at most `max_rank`: the sum of their policies' ranks.

        Raises:
            ValueError: if vLLM is not installed, or the rank is too large for it.
        """
        if max_rank > _MAX_RANKS[-1]:
            raise ValueError(
                f"generation.engine: vllm: takes adapters of rank {_MAX_RANKS[-1]} at most, and the policies' ranks "
                f"add up to {max_rank}; use transformers"
            )
        try:
            self._vllm: Any = importlib.import_module("vllm")
            self._lora: Any = importlib.import_module("vllm.lora.request")
        except ImportError as error:
            raise ValueError("generation.engine: vllm: not installed; pip install vllm, or use transformers") from error
        rank = next(rank for rank in _MAX_RANKS if rank >= max_rank)
        self._model = self._vllm.LLM(model=str(folder), enable_lora=True, max_lora_rank=rank, seed=seed)
        self._candidates = 0
        self._request: Any = None

    def use(self, adapter: Path | None) -> None:
        """Complete with the SFT model and an adapter of `write_adapter`; None: without an adapter."""
        self._candidates += 1  # vLLM identifies adapters by number, so each needs a new one
        name = str(self._candidates)
        self._request = adapter and self._lora.LoRARequest(name, self._candidates, str(adapter))

    def complete(self, prompts: Sequence[Prompt], draws: Sequence[int], decoding: Decoding) -> list[str]:
        """See `tasks.language.base.Engine`."""
        params = [
            self._vllm.SamplingParams(
                temperature=decoding.temperature,
                max_tokens=decoding.max_new_tokens,
                seed=sample_seed(decoding, prompt, draw),
            )
            for prompt, draw in zip(prompts, draws, strict=True)
        ]
        texts = [prompt.text for prompt in prompts]
        outputs = self._model.generate(texts, params, use_tqdm=False, lora_request=self._request)
        return [output.outputs[0].text.strip() for output in outputs]


def write_adapter(folder: Path, factors: Mapping[str, tuple[Tensor, Tensor]], base: str) -> Path:
    """Write a candidate as an adapter of scale 1 that peft and vLLM read.

    Args:
        folder: created if it is missing.
        factors: parameter name (ending in ".weight") -> b of shape (O, R) and a of shape (R, I), scales included; ranks
            may differ and are padded with zeros to the largest.
        base: the SFT model, recorded as the adapter's base.
    """
    rank = max(b_OR.shape[1] for b_OR, _ in factors.values())
    tensors: dict[str, Tensor] = {}
    for name, (b_OR, a_RI) in factors.items():
        module, more = name.removesuffix(".weight"), rank - b_OR.shape[1]
        tensors[f"base_model.model.{module}.lora_A.weight"] = F.pad(a_RI, (0, 0, 0, more)).contiguous().cpu()
        tensors[f"base_model.model.{module}.lora_B.weight"] = F.pad(b_OR, (0, more)).contiguous().cpu()
    modules = [name.removesuffix(".weight") for name in factors]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=modules,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
