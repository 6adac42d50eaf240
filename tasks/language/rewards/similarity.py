"""Sentence similarity as a reward: the cosine of two embeddings.

Shape legend: N texts, B of a batch, L tokens, D embedding dimension.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

from tasks.files.cache import digest
from tasks.language.base import Sample
from tasks.language.rewards.config import RewardConfig
from tasks.language.rewards.files import folder_fingerprint, read_fast_tokenizer, read_model, reward_folder
from tasks.language.rewards.texts import batches, token_limit


class Similarity(RewardConfig):
    """Options of `reward/similarity`."""

    model: str
    """A folder, embedded/minilm, or hf:OWNER/REPO, with an encoder like all-MiniLM-L6-v2 and its tokenizer."""
    against: Literal["source", "reference"] = "source"
    """The text to compare the completion with: the prompt's source, or a human's reference."""
    max_length: int | None = Field(None, ge=1)
    """Longer texts lose their end; by default all that the model takes."""
    batch_size: int = Field(64, ge=1)
    """Texts a batch."""

    def fingerprint(self) -> str:
        """Hash the model's files and the options, without their folder and the batch size."""
        options = self.model_dump_json(exclude={"model", "batch_size"})
        return digest(["similarity", folder_fingerprint(reward_folder(self.model)), options])

    def load(self, device: torch.device) -> "SimilarityReward":
        """Read the encoder; see `SimilarityReward` for errors."""
        return SimilarityReward(self, device)


class SimilarityReward:
    """An encoder on its device, which caches the embeddings of sources and references.

    An embedding is the mean of the last hidden states over the attention mask, as in sentence-transformers' settings of
    all-MiniLM-L6-v2 (1_Pooling/config.json).
    """

    def __init__(self, config: Similarity, device: torch.device) -> None:
        """Read model and tokenizer.

        Raises:
            ValueError: if the model cannot be read, its tokenizer has no pad token, or `max_length` is too long.
        """
        self.fingerprint = config.fingerprint()
        self._config = config
        self._model = read_model(AutoModel, config.model, device, unused="pooler")
        self._tokenizer = read_fast_tokenizer(config.model)
        if self._tokenizer.pad_token is None:
            raise ValueError(f"options.model: {config.model}: its tokenizer has no pad token: save it with one")
        self._limit = token_limit(self._tokenizer, self._model, config.max_length)
        self._known: dict[str, Tensor] = {}

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Return cosines in [-1, 1]; 0 for an empty completion.

        Raises:
            ValueError: if there is no reference to compare with.
        """
        others = [self._other(sample) for sample in samples]
        if new := [text for text in dict.fromkeys(others) if text not in self._known]:
            self._known.update(zip(new, self._embed(new), strict=True))
        filled = [i for i, sample in enumerate(samples) if sample.completion.strip()]
        scores = [0.0] * len(samples)
        for i, embedding_D in zip(filled, self._embed([samples[i].completion for i in filled]), strict=True):
            scores[i] = float(embedding_D @ self._known[others[i]])
        return scores

    def _other(self, sample: Sample) -> str:
        if self._config.against == "source":
            return sample.prompt.source
        if not sample.prompt.reference:
            raise ValueError(
                f"options.against: reference: the prompt {sample.prompt.text[:60]!r} has none; compare with the source"
            )
        return sample.prompt.reference

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Return normalised embeddings (N, D) on the CPU."""
        tokens = [
            self._tokenizer(text, truncation=self._limit is not None, max_length=self._limit, verbose=False)
            for text in texts
        ]
        embeddings_ND = torch.empty(len(texts), self._model.config.hidden_size)
        for indices in batches([len(t["input_ids"]) for t in tokens], self._config.batch_size):
            padded = self._tokenizer.pad([tokens[i] for i in indices], return_tensors="pt").to(self._model.device)
            states_BLD = self._model(**padded).last_hidden_state
            mask_BL1 = padded["attention_mask"].unsqueeze(-1)
            mean_BD = (states_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
            embeddings_ND[indices] = F.normalize(mean_BD, dim=-1).cpu()
        return embeddings_ND
