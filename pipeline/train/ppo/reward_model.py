"""The reward that a policy learns: the raw score of its texts, centred, minus a penalty for a missing end."""

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from pipeline.train.ppo.data import prompt_ids
from tasks.language.base import Prompt, Reward, Sample
from tasks.language.rewards.loading import checked


@dataclass(frozen=True, slots=True)
class Centring:
    """(raw - mean) / std; with `references`, the raw score of the prompt's reference is subtracted from raw first."""

    mean: float = 0.0
    std: float = 1.0
    references: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion that a policy sampled while it learns.

    Attributes:
        sample: prompt and text.
        length: in tokens, with the end-of-sequence token.
        ended: whether there is an end-of-sequence token.
    """

    sample: Sample
    length: int
    ended: bool


@dataclass
class RewardScorer:
    """Score completions, and collect the scores for the log.

    Attributes:
        name: of the reward, for errors.
        reward: gives raw scores.
        centring: of the raw scores.
        penalty: subtracted from the centred score of a completion without an end.
        raw: scores since the last `take`, with their completions.
    """

    name: str
    reward: Reward
    centring: Centring
    penalty: float
    raw: list[tuple[float, Completion]] = field(default_factory=list)
    _references: dict[Prompt, float] = field(default_factory=dict)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """Return one centred score a completion, in their order.

        Raises:
            ValueError: if the reward gives another number of scores, or one that is not finite.
        """
        raw = self._score([c.sample for c in completions])
        self.raw += zip(raw, completions, strict=True)
        offsets = self._offsets([c.sample.prompt for c in completions])
        centred = [(r - o - self.centring.mean) / self.centring.std for r, o in zip(raw, offsets, strict=True)]
        return [s - self.penalty * (not c.ended) for s, c in zip(centred, completions, strict=True)]

    def _score(self, samples: Sequence[Sample]) -> list[float]:
        return [float(score) for score in checked(self.name, self.reward, samples)]

    def _offsets(self, prompts: Sequence[Prompt]) -> list[float]:
        if not self.centring.references:
            return [0.0] * len(prompts)
        if new := list(dict.fromkeys(p for p in prompts if p not in self._references)):
            scores = self._score([Sample(p, p.reference) for p in new])
            self._references.update(zip(new, scores, strict=True))
        return [self._references[p] for p in prompts]

    def take(self) -> Mapping[str, float]:
        """Return the scores' columns of a row of TRAINING, over all completions since the last call."""
        raw, completions = [r for r, _ in self.raw], [c for _, c in self.raw]
        self.raw = []
        return {
            "reward": statistics.fmean(raw),
            "reward_std": statistics.stdev(raw),
            "length": statistics.fmean(c.length for c in completions),
            "eos": statistics.fmean(c.ended for c in completions),
        }


class PromptCollator:
    """Pad the prompts of a batch, and keep their order for the reward.

    A queue, because PPOTrainer asks for batches ahead of time but uses them in order.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> None:
        """Collate rows of {"index": of a prompt, "input_ids": its tokens}."""
        self._tokenizer, self._prompts = tokenizer, prompts
        self._queue: deque[tuple[Prompt, int]] = deque()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Return token ids and attention mask of a batch, padded on the left."""
        batch = self._tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        width = batch["input_ids"].shape[1]
        self._queue += [(self._prompts[row["index"]], width) for row in rows]
        return batch

    def take(self, count: int) -> list[tuple[Prompt, int]]:
        """Return the next prompts, each with the width of its batch."""
        return [self._queue.popleft() for _ in range(count)]


class _Texts(nn.Module):
    """Decode tokens and score the text, in place of the reward model's backbone that trl expects."""

    def __init__(self, scorer: RewardScorer, tokenizer: PreTrainedTokenizerBase, batches: PromptCollator) -> None:
        super().__init__()
        self._scorer, self._tokenizer, self._batches = scorer, tokenizer, batches

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """Token ids (B, T), prompts padded on the left, completions cut after their end -> scores as (B, T, 1)."""
        prompts = self._batches.take(len(input_ids))
        rows = zip(input_ids, attention_mask.bool(), prompts, strict=True)
        scores = self._scorer([self._completion(*row) for row in rows])
        found = torch.tensor(scores, dtype=torch.float32, device=input_ids.device)
        return SimpleNamespace(hidden_states=[found.view(-1, 1, 1).expand(-1, input_ids.shape[1], 1)])

    def _completion(self, ids: Tensor, real: Tensor, entry: tuple[Prompt, int]) -> Completion:
        prompt, width = entry
        assert ids[:width][real[:width]].tolist() == prompt_ids(self._tokenizer, prompt), "another prompt than expected"
        learned = real[width:].long().cumprod(0).bool()  # a sampled pad token ends it too, for the trainer
        return completion(self._tokenizer, prompt, ids[width:][learned].tolist())


def completion(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, ids: list[int]) -> Completion:
    """Decode the tokens of a completion, up to its end."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()
    return Completion(Sample(prompt, text), len(ids), tokenizer.eos_token_id in ids)


class RewardModule(nn.Module):
    """A scorer of texts as the reward model that PPOTrainer expects: a backbone, then `score`."""

    base_model_prefix = "texts"

    def __init__(self, scorer: RewardScorer, tokenizer: PreTrainedTokenizerBase, batches: PromptCollator) -> None:
        """Score the policy's completions of the prompts in `batches`."""
        super().__init__()
        self.texts = _Texts(scorer, tokenizer, batches)
        self.score = nn.Identity()
