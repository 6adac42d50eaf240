"""Proves that similarity and plainness are what they are defined as, and which corpus plainness counts in."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_rewards import CPU, SAMPLES, TEXTS, sample
from transformers import AutoModel, AutoTokenizer

from tasks.language.base import Prompt, Sample
from tasks.language.rewards.loading import checked, load_reward, reward_fingerprint


def test_similarity_is_the_cosine_of_mean_states(folders: Mapping[str, Path]) -> None:
    model, tokenizer = AutoModel.from_pretrained(folders["encoder"]), AutoTokenizer.from_pretrained(folders["encoder"])

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            states: torch.Tensor = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return states.mean(dim=0)

    reward = load_reward("reward/similarity", {"model": str(folders["encoder"]), "batch_size": 3}, CPU)
    expected = [
        torch.cosine_similarity(embed(s.prompt.source), embed(s.completion), dim=0).item() if s.completion else 0.0
        for s in SAMPLES
    ]
    scores = checked("similarity", reward, SAMPLES)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert reward.score([sample(TEXTS[1], TEXTS[1])]) == pytest.approx([1.0])
    assert reward.score([]) == []


def test_similarity_to_the_reference(folders: Mapping[str, Path]) -> None:
    options = {"model": str(folders["encoder"]), "against": "reference"}
    reward = load_reward("reward/similarity", options, CPU)
    assert reward.score([Sample(Prompt("x", "x", TEXTS[2]), TEXTS[2])]) == pytest.approx([1.0])
    with pytest.raises(ValueError, match=r"options\.against: reference: the prompt 'Description: .*has none"):
        reward.score([sample("a tool")])
    assert reward.fingerprint == reward_fingerprint("reward/similarity", options)
    assert reward.fingerprint != reward_fingerprint("reward/similarity", {**options, "against": "source"})
    with pytest.raises(ValueError, match=r"options\.against: input should be 'source' or 'reference', got 'prompt'"):
        load_reward("reward/similarity", {**options, "against": "prompt"}, CPU)


def test_plainness_is_the_mean_logarithm_of_frequencies(tmp_path: Path) -> None:
    rows = '{"source": "a tool, a library", "reference": "The A."}\n\n{"source": "A file\u2028of a tool"}\n'
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "test.jsonl").write_text('{"source": "unseen"}\n')
    reward = load_reward("reward/plainness", {"corpus": str(tmp_path)}, CPU)
    completions = ("a tool", "TOOL, tool!", "a unseen", "", "...")
    scores = checked("plain", reward, [sample(c) for c in completions])
    per_word = {"a": 5, "tool": 2, "unseen": 0.5}
    a, tool, floor = (np.log10(count / 11 * 1e6) for count in per_word.values())
    np.testing.assert_allclose(scores, [(a + tool) / 2, tool, (a + floor) / 2, floor, floor], rtol=1e-6)
    assert reward.fingerprint == reward_fingerprint("reward/plainness", {"corpus": str(tmp_path)})
    (tmp_path / "words.txt").write_text("a tool a")
    options = {"corpus": str(tmp_path / "words.txt")}
    assert load_reward("reward/plainness", options, CPU).score([sample("a")]) == pytest.approx([np.log10(2 / 3 * 1e6)])
    assert reward_fingerprint("reward/plainness", options) != reward.fingerprint


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x", r"a\.csv: must be a \.txt or \.jsonl file"),
        ("a.txt", "!", r"a\.txt: holds no words"),
        ("a.jsonl", "{", r"a\.jsonl: row 1: not JSON"),
        (
            "a.jsonl",
            '{"source": "x"}\n{"sources": "y"}',
            r"row 2: no text in source or reference; did you mean 'sources'",
        ),
        ("a.jsonl", "[]", r"row 1: must be an object"),
        ("b", "", r"a: no such folder"),
    ],
)
def test_a_corpus_that_is_none(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    corpus = tmp_path / (name if name != "b" else "a")
    with pytest.raises(ValueError, match=rf"^options\.corpus: .*{message}"):
        load_reward("reward/plainness", {"corpus": str(corpus)}, CPU)


def test_the_default_corpus_is_built_first() -> None:
    with pytest.raises(ValueError, match=r"^options\.corpus: embedded/packages: not built yet: `make rewarded-soups`"):
        load_reward("reward/plainness", {}, CPU)
