"""Proves that a policy learns the rewards of its own completions: the right texts, centred as measured."""

import json
import statistics
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from pipeline.train.ppo.data import prompt_ids
from pipeline.train.ppo.reward_model import Centring, Completion, PromptCollator, RewardModule, RewardScorer
from pipeline.train.ppo.sft_scores import centring_of, judge, saturation
from tasks.language.base import Prompt, Sample
from tasks.language.models import load_tokenizer


class Echo:
    """A reward that returns scores from a list and records its samples."""

    fingerprint = "echo"

    def __init__(self, *scores: float) -> None:
        self.scores, self.asked = list(scores), list[Sample]()

    def score(self, samples: list[Sample]) -> list[float]:
        self.asked += samples
        return [self.scores.pop(0) for _ in samples]


PROMPT = Prompt("p", "p", "r")


def made(text: str, ended: bool = True, prompt: Prompt = PROMPT) -> Completion:
    return Completion(Sample(prompt, text), 3, ended)


def test_centring_is_of_the_raw_reward_and_the_penalty_of_the_centred_one() -> None:
    scorer = RewardScorer("r", Echo(1.0, 4.0), Centring(mean=2.0, std=0.5), penalty=3.0)
    assert scorer([made("a"), made("b", ended=False)]) == [(1 - 2) / 0.5, (4 - 2) / 0.5 - 3]
    row = scorer.take()
    assert row == {"reward": 2.5, "reward_std": pytest.approx(statistics.stdev([1, 4])), "length": 3, "eos": 0.5}
    assert not scorer.raw


def test_a_reference_is_scored_once_and_taken_off_its_own_prompt() -> None:
    one, two = Prompt("p", "p", "ref one"), Prompt("q", "q", "ref two")
    echo = Echo(1.0, 2.0, 3.0, 10.0, 20.0, 5.0)
    scorer = RewardScorer("r", echo, Centring(mean=-1.0, std=2.0, references=True), penalty=0.0)
    assert scorer([made("a", prompt=one), made("b", prompt=two), made("c", prompt=one)]) == [-4, -8.5, -3]
    assert [s.completion for s in echo.asked] == ["a", "b", "c", "ref one", "ref two"]
    assert scorer([made("d", prompt=two)]) == [(5 - 20 + 1) / 2]


def test_the_reward_module_gets_sources_and_completions_exactly(ground: Path) -> None:
    """As PPOTrainer calls it; two prompts of one text with other references, a completion that holds the template."""
    tokenizer = load_tokenizer(str(ground / "model"))
    prompts = [Prompt("Say: a\nSynopsis:", "a", "1"), Prompt("Say: long one\nSynopsis:", "long one", "2")]
    prompts.append(Prompt("Say: a\nSynopsis:", "a", "3"))
    batches, echo = PromptCollator(tokenizer, prompts), Echo(1.0, 2.0, 3.0)
    scorer = RewardScorer("r", echo, Centring(), penalty=0.0)
    module = RewardModule(scorer, tokenizer, batches)
    order = [2, 1, 0]
    batch = batches([{"index": i, "input_ids": prompt_ids(tokenizer, prompts[i])} for i in order])
    said = [" Synopsis: x", " b", " Say: a\nSynopsis: c"]
    ends = [[tokenizer.eos_token_id], [], [tokenizer.eos_token_id]]
    new = [tokenizer(t)["input_ids"] + end for t, end in zip(said, ends, strict=True)]
    width = max(map(len, new))
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids in new])
    whole = torch.cat([batch["input_ids"], padded], dim=1)
    mask = whole != tokenizer.pad_token_id
    hidden = []
    for part in (slice(0, 2), slice(2, 3)):  # a batch comes in pieces
        output = module.texts(input_ids=whole[part].masked_fill(~mask[part], 0), attention_mask=mask[part])
        hidden.append(module.score(output.hidden_states[-1]))
    assert [(s.prompt, s.completion) for s in echo.asked] == [
        (prompts[i], text.strip()) for i, text in zip(order, said, strict=True)
    ]
    assert torch.cat(hidden)[:, :, 0].tolist() == [[s] * whole.shape[1] for s in (1.0, 2.0, 3.0)]
    assert [c.ended for _, c in scorer.raw] == [True, False, True]
    assert [c.length for _, c in scorer.raw] == [len(ids) for ids in new]


def test_a_completion_ends_where_the_policy_stops_learning(ground: Path) -> None:
    """PPOTrainer takes the first pad token for the end, even a sampled one: nothing after it is scored."""
    tokenizer = load_tokenizer(str(ground / "model"))
    batches, echo = PromptCollator(tokenizer, [PROMPT]), Echo(1.0)
    scorer = RewardScorer("r", echo, Centring(), penalty=0.0)
    batch = batches([{"index": 0, "input_ids": prompt_ids(tokenizer, PROMPT)}])["input_ids"]
    new = [*tokenizer(" b")["input_ids"], tokenizer.pad_token_id, *tokenizer(" c")["input_ids"], tokenizer.eos_token_id]
    whole = torch.cat([batch, torch.tensor([new])], dim=1)
    mask = whole != tokenizer.pad_token_id
    RewardModule(scorer, tokenizer, batches).texts(input_ids=whole.masked_fill(~mask, 0), attention_mask=mask)
    assert [(c.sample.completion, c.length, c.ended) for _, c in scorer.raw] == [("b", 2, False)]


@pytest.mark.training
def test_centring_is_what_was_measured_on_the_sft_model(ground: Path, after_sft: Path) -> None:
    found = json.loads((after_sft / "measured" / "near" / "train.json").read_text())
    scores = pq.read_table(after_sft / "measured" / "near" / "completions.parquet")["reward"].to_pylist()
    assert len(scores) == 6 and found["centring"]["sft"] == {
        "mean": pytest.approx(statistics.fmean(scores)),
        "std": pytest.approx(statistics.stdev(scores)),
        "references": False,
    }


def test_centring_by_references_is_of_the_differences() -> None:
    prompts = [Prompt(t, t, "r") for t in "abc"]
    found = judge("r", Echo(1.0, 1.0, 4.0), prompts, [1.0, 2.0, 3.0])
    assert (
        found["centring"]["reference"] == {"mean": 0.0, "std": 1.0, "references": True} and found["reference_mean"] == 2
    )


def test_a_reward_of_the_prompt_alone_cannot_be_centred_by_references() -> None:
    found = judge("r", Echo(1.0, 2.0, 3.0), [Prompt(t, t, "r") for t in "abc"], [1.0, 2.0, 3.0])
    assert centring_of("r", found, "sft") == Centring(2.0, 1.0)
    with pytest.raises(ValueError, match=r"rewards\.r: reward_centring: reference: .* differ by 0 for all 3 prompts"):
        centring_of("r", found, "reference")


def test_a_reward_that_cannot_teach_is_an_error_and_a_saturated_one_a_warning() -> None:
    prompts = [Prompt(t, t) for t in "abcdefghij"]
    with pytest.raises(ValueError, match=r"rewards.r: gives 0.3 to all 10 completions of the SFT model, so it can"):
        judge("r", Echo(), prompts, [0.3] * 10)
    assert saturation([5.0] * 9 + [4.0], []) == [
        "saturated: 90 % of the SFT model's completions score within 1 % of the highest, 5"
    ]
    assert saturation([5.0] * 8 + [4.0] * 2, []) == []
    assert saturation([5.0] * 9 + [4.0], [9.0]) == []  # a reference scores higher
    assert saturation([0.975, 0.985, 0.995], []) == [
        "saturated: the SFT model's completions score 0.9850 on average, of at most 1"
    ]
    assert saturation([0.9, 1.0, 1.0], []) == [] and saturation([1.975, 1.985, 1.995], []) == []
