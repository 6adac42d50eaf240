"""From texts to what a policy sees of its reward: scored raw, centred, less a penalty for a missing end."""

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
    """(raw - mean) / std, of raw less its prompt's reference where `references`."""

    mean: float = 0.0
    std: float = 1.0
    references: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One that a policy made while it learns.

    Attributes:
        sample: prompt and text.
        length: tokens, the end-of-sequence token included.
        ended: whether it has one.
    """

    sample: Sample
    length: int
    ended: bool


@dataclass
class RewardScorer:
    """Scores completions, and remembers what it scored until it is asked.

    Attributes:
        name: of the reward, for errors.
        reward: what scores.
        centring: of its scores.
        penalty: taken off a centred score where the completion has no end.
        raw: scores since the last `take`, with their completions.
    """

    name: str
    reward: Reward
    centring: Centring
    penalty: float
    raw: list[tuple[float, Completion]] = field(default_factory=list)
    _references: dict[Prompt, float] = field(default_factory=dict)

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One centred score a completion, in their order.

        Raises:
            ValueError: the reward gives another number of scores, or one that is not finite.
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
        """The columns of a row of the training's table that scoring knows, over all since the last call."""
        raw, completions = [r for r, _ in self.raw], [c for _, c in self.raw]
        self.raw = []
        return {
            "reward": statistics.fmean(raw),
            "reward_std": statistics.stdev(raw),
            "length": statistics.fmean(c.length for c in completions),
            "eos": statistics.fmean(c.ended for c in completions),
        }


class PromptCollator:
    """Pads the prompts of a batch, and tells the reward in which order they come.

    PPOTrainer asks for batches ahead of time but uses them in their order, hence the queue.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> None:
        """Collate rows of {"index": of a prompt, "input_ids": its tokens}."""
        self._tokenizer, self._prompts = tokenizer, prompts
        self._made: deque[tuple[Prompt, int]] = deque()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Token ids and attention mask of a batch, padded on the left."""
        batch = self._tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        width = batch["input_ids"].shape[1]
        self._made += [(self._prompts[row["index"]], width) for row in rows]
        return batch

    def take(self, count: int) -> list[tuple[Prompt, int]]:
        """The next prompts that are in use, each with its batch's width."""
        return [self._made.popleft() for _ in range(count)]


class _Texts(nn.Module):
    """Where trl expects the reward model's backbone: tokens are decoded, the text is scored."""

    def __init__(self, scorer: RewardScorer, tokenizer: PreTrainedTokenizerBase, batches: PromptCollator) -> None:
        super().__init__()
        self._scorer, self._tokenizer, self._batches = scorer, tokenizer, batches

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """Token ids (B, T), prompts padded on the left, completions cut behind their end -> scores as (B, T, 1)."""
        prompts = self._batches.take(len(input_ids))
        rows = zip(input_ids, attention_mask.bool(), prompts, strict=True)
        scores = self._scorer([self._completion(*row) for row in rows])
        found = torch.tensor(scores, dtype=torch.float32, device=input_ids.device)
        return SimpleNamespace(hidden_states=[found.view(-1, 1, 1).expand(-1, input_ids.shape[1], 1)])

    def _completion(self, ids: Tensor, real: Tensor, made: tuple[Prompt, int]) -> Completion:
        prompt, width = made
        assert ids[:width][real[:width]].tolist() == prompt_ids(self._tokenizer, prompt), "another prompt than expected"
        learned = real[width:].long().cumprod(0).bool()  # a pad token may be sampled: the trainer takes it for the end
        return completion(self._tokenizer, prompt, ids[width:][learned].tolist())


def completion(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, ids: list[int]) -> Completion:
    """What the tokens of a completion say, up to and with its end."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()
    return Completion(Sample(prompt, text), len(ids), tokenizer.eos_token_id in ids)


class RewardModule(nn.Module):
    """A scorer of texts in the shape in which PPOTrainer takes a reward model: a backbone, then `score`."""

    base_model_prefix = "texts"

    def __init__(self, scorer: RewardScorer, tokenizer: PreTrainedTokenizerBase, batches: PromptCollator) -> None:
        """Score what the policy completes of the prompts in `batches`."""
        super().__init__()
        self.texts = _Texts(scorer, tokenizer, batches)
        self.score = nn.Identity()
