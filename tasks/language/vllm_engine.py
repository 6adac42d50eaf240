"""Completions by vLLM, where it is installed: the SFT model stays resident, and a candidate is one LoRA adapter.

vLLM batches as it sees fit, so a completion may change with its neighbours where two tokens are as good as equal;
`generation.TransformersEngine` has no such freedom.

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

#: Ranks for which vLLM keeps room.
_ROOMS = (8, 16, 32, 64, 128, 256, 320, 512)


class VllmEngine:
    """An `Engine` that holds the SFT model, and one candidate at a time."""

    def __init__(self, folder: Path, max_rank: int, seed: int = 0) -> None:
        """Load the SFT model of `folder`, for candidates of at most `max_rank`: the sum of their policies' ranks.

        Raises:
            ValueError: vLLM is not installed, or has no room for such a rank.
        """
        if max_rank > _ROOMS[-1]:
            raise ValueError(
                f"generation.engine: vllm: takes adapters of rank {_ROOMS[-1]} at most, and the policies' ranks add up "
                f"to {max_rank}; use transformers"
            )
        try:
            self._vllm: Any = importlib.import_module("vllm")
            self._lora: Any = importlib.import_module("vllm.lora.request")
        except ImportError as error:
            raise ValueError("generation.engine: vllm: not installed; pip install vllm, or use transformers") from error
        room = next(rank for rank in _ROOMS if rank >= max_rank)
        self._model = self._vllm.LLM(model=str(folder), enable_lora=True, max_lora_rank=room, seed=seed)
        self._candidates = 0
        self._request: Any = None

    def use(self, adapter: Path | None) -> None:
        """Complete with the SFT model changed by an adapter of `write_adapter`; None: as it is."""
        self._candidates += 1  # vLLM knows adapters by number: one that was used before stands for its old weights
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
        folder: made where it is missing.
        factors: parameter name (ending in ".weight") -> b of shape (O, R) and a of (R, I), all scales in them; their
            ranks may differ, and are filled up with zeros to the largest.
        base: the SFT model, which the adapter names as its base.
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
