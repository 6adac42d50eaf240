"""Proves what the SFT model learns from, in which order, and that resuming is exact."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from small_ppo import ignore, read_ppo, stages, stop, stopping
from tiny_language import TEMPLATE
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig

from pipeline.train.ppo import sft
from pipeline.train.ppo.data import load_data, rows
from pipeline.train.ppo.models import one_device
from pipeline.train.ppo.sft import example, rate, train_sft
from tasks.language.base import Prompt
from tasks.language.models import load_tokenizer

pytestmark = pytest.mark.training


def test_sft_learns_from_the_reference_alone(ground: Path) -> None:
    tokenizer = load_tokenizer(str(ground / "model"))
    pair = example(tokenizer, Prompt("Say: a b\nSynopsis:", "a b", "reading images"))
    before = tokenizer("Say: a b\nSynopsis:")["input_ids"]
    after = [*tokenizer(" reading images")["input_ids"], tokenizer.eos_token_id]
    assert pair == {"input_ids": before + after, "labels": [-100] * len(before) + after}


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like LLaMA's: a space belongs to the next word, and each text gets one in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    tokenizer.train_from_iterator(
        ["Say: a b\nSynopsis: reading images"], trainers.BpeTrainer(special_tokens=["</s>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.mark.parametrize(("prompt", "space"), [("Say: a b\nSynopsis:", " "), ("Say: a\n", "")])
def test_a_reference_is_learned_in_the_tokens_that_follow_its_prompt(prompt: str, space: str) -> None:
    """Tokenized alone, it would begin with one more space in LLaMA's tokenizer."""
    tokenizer = word_tokenizer()
    pair = example(tokenizer, Prompt(prompt, "a b", "reading images"))
    before = len(tokenizer(prompt)["input_ids"])
    assert pair["input_ids"] == [*tokenizer(f"{prompt}{space}reading images")["input_ids"], tokenizer.eos_token_id]
    assert pair["labels"] == [-100] * before + pair["input_ids"][before:]


def test_a_reference_is_learned_after_the_prompts_own_tokens() -> None:
    """Even if a token of both together would cross the end of the prompt."""
    tokenizer = word_tokenizer()
    pair = example(tokenizer, Prompt("Say: a b\n", "a b", "Synopsis: reading"))
    before, whole = (tokenizer(text)["input_ids"] for text in ("Say: a b\n", "Say: a b\nSynopsis: reading"))
    assert whole[: len(before)] != before
    assert pair["input_ids"][: len(before)] == before and pair["labels"][: len(before)] == [-100] * len(before)


def loss(model: Any, pair: dict[str, list[int]]) -> tuple[float, int]:
    """Sum of the cross entropy over the tokens that are learned, and their number."""
    ids, labels = (torch.tensor([pair[key]]) for key in ("input_ids", "labels"))
    logits = model(input_ids=ids).logits[0, :-1]
    return float(F.cross_entropy(logits, labels[0, 1:], reduction="sum")), int((labels != -100).sum())


def test_the_loss_of_sft_is_that_of_the_references_and_falls(ground: Path, tmp_path: Path) -> None:
    """With one batch of all pairs, the logged loss is the mean over the references' tokens, with their ends."""
    spec = read_ppo(
        tmp_path, ground, sft={"steps": 2, "batch_size": 24, "lr": 1e-2, "warm_up": 0.0, "checkpoint_every": 1}
    )
    (job,) = stages(spec, tmp_path / "out").first()
    train_sft(job, ignore)
    tokenizer = load_tokenizer(str(ground / "model"))
    base = AutoModelForCausalLM.from_pretrained(ground / "model")
    pairs = [example(tokenizer, prompt) for prompt in load_data(spec, tokenizer, base.config).train]
    with torch.no_grad():
        before, after = ([loss(m, p) for p in pairs] for m in (base, AutoModelForCausalLM.from_pretrained(job.folder)))
    log = pq.read_table(job.folder / "log.parquet").to_pylist()
    assert log[0]["loss"] == pytest.approx(sum(s for s, _ in before) / sum(n for _, n in before), rel=1e-5)
    assert sum(s for s, _ in after) < sum(s for s, _ in before)
    assert [row["lr"] for row in log] == pytest.approx([1e-2, 5e-3])


def test_a_pair_that_is_too_long_is_an_error_before_training(ground: Path, tmp_path: Path) -> None:
    shutil.copytree(ground / "prompts", tmp_path / "prompts")
    file = tmp_path / "prompts" / "train.jsonl"
    lines = file.read_text().splitlines()
    lines[3] = json.dumps({**json.loads(lines[3]), "reference": "a tool " * 200})
    file.write_text("\n".join(lines) + "\n")
    prompts = {"source": str(tmp_path / "prompts"), "template": TEMPLATE}
    (job,) = stages(read_ppo(tmp_path, ground, prompts=prompts), tmp_path / "out").first()
    with pytest.raises(ValueError, match=r"prompts: .*with its reference .* tokens, and the model takes 256"):
        train_sft(job, ignore)


def test_a_model_is_trained_on_one_gpu_however_many_are_seen(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several, trl's trainers would train a copy on each, with its own batch."""
    config = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    config._n_gpu = 2
    assert one_device(config).n_gpu == 1


def test_sft_by_factors_is_merged_and_full_sft_moves_every_weight(
    ground: Path, after_sft: Path, tmp_path: Path
) -> None:
    before, merged = (load_file(folder / "model.safetensors") for folder in (ground / "model", after_sft / "sft"))
    assert before.keys() == merged.keys()
    moved = {name for name in before if not torch.equal(before[name], merged[name])}
    assert moved == {name for name in before if name.endswith("_proj.weight")}
    changes = {"steps": 1, "batch_size": 4, "lr": 1e-2, "lora": None}
    (job,) = stages(read_ppo(tmp_path, ground, sft=changes), tmp_path / "out").first()
    train_sft(job, ignore)
    full = load_file(job.folder / "model.safetensors")
    assert all(not torch.equal(before[name], full[name]) for name in before)


def test_sft_that_was_stopped_ends_with_the_bits_of_an_undisturbed_one(
    ground: Path, after_sft: Path, tmp_path: Path
) -> None:
    (job,) = stages(read_ppo(tmp_path, ground), tmp_path / "out").first()
    with pytest.raises(KeyboardInterrupt):
        train_sft(job, stopping(3))
    assert job.condition() == "started"
    train_sft(job, ignore)
    assert (job.folder / "model.safetensors").read_bytes() == (after_sft / "sft" / "model.safetensors").read_bytes()
    assert load_tokenizer(str(job.folder)).pad_token == "<pad>"


def test_sft_that_was_stopped_at_its_end_writes_what_it_learned(
    ground: Path, after_sft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last checkpoint no step is left, and the model is written from it."""
    (job,) = stages(read_ppo(tmp_path, ground), tmp_path / "out").first()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sft, "finish", stop)
        train_sft(job, ignore)
    assert job.condition() == "started"
    train_sft(job, ignore)
    assert (job.folder / "model.safetensors").read_bytes() == (after_sft / "sft" / "model.safetensors").read_bytes()


def test_the_rate_rises_and_falls_in_straight_lines() -> None:
    assert [rate(step, 10, 0.2) for step in (0, 1)] == pytest.approx([1 / 3, 2 / 3])
    assert [rate(step, 10, 0.2) for step in (2, 6, 9)] == pytest.approx([1, 0.5, 0.125])
    assert rate(0, 1, 0.0) == 1


def test_missing_references_are_an_error(ground: Path, tmp_path: Path) -> None:
    shutil.copytree(ground / "prompts", tmp_path / "prompts")
    lines = (tmp_path / "prompts" / "train.jsonl").read_text().splitlines()
    lines[3] = json.dumps({"source": json.loads(lines[3])["source"]})
    (tmp_path / "prompts" / "train.jsonl").write_text("\n".join(lines) + "\n")
    prompts = {"source": str(tmp_path / "prompts")}
    with pytest.raises(ValueError, match="1 of 24 rows of train have no reference, which sft needs"):
        stages(read_ppo(tmp_path, ground, prompts=prompts), tmp_path / "out")
    with pytest.raises(ValueError, match="rows of train have no reference, which reward_centring: reference needs"):
        stages(read_ppo(tmp_path, ground, prompts=prompts, sft=None, reward_centring="reference"), tmp_path / "out")
    stages(read_ppo(tmp_path, ground, prompts=prompts, sft=None), tmp_path / "out")


def test_order_of_prompts_is_whole_passes_and_follows_from_the_seed() -> None:
    found = rows(5, 0, 15, 1)
    assert [sorted(found[i : i + 5]) for i in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert found[3:9] == rows(5, 3, 9, 1) and rows(50, 0, 50, 1) != rows(50, 0, 50, 2)
