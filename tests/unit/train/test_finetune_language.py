"""Proves that language models learn the tokens that are scored, resume with the same bits, and load as experts."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import peft
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from small_finetune import outputs
from small_texts import text_row, write_language_base, write_rows, write_text_finetune
from tiny_language import bart_config, tiny_tokenizer, write_tiny_seq2seq
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.spec.load import SpecError
from pipeline.train.finetune.batches import EpochBatches
from pipeline.train.finetune.language import adapter_settings, language_rates
from pipeline.train.finetune.learners import _under
from pipeline.train.finetune.methods import METHODS
from pipeline.train.finetune.preparation import FinetuneJob, load_base, load_training_task, prepare
from pipeline.train.finetune.selection import tuning_of
from pipeline.train.finetune.spec import FinetuneSettings, load_finetune_spec
from pipeline.train.finetune.trainer import finetune
from pipeline.train.job import TrainingStatus

pytestmark = pytest.mark.training
FAMILIES = ("causal", "seq2seq", "encoder")
AUTO: dict[str, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM, "encoder": AutoModel}
#: Every row is in the only batch, so that its order does not matter.
WHOLE = {"lr": 1e-3, "steps": 1, "batch_size": 24}


def jobs(folder: Path, family: str, **changes: Any) -> dict[str, FinetuneJob]:
    spec = load_finetune_spec(write_text_finetune(folder, family, **changes))
    return {j.name: j for j in prepare(spec, folder / "out", "cpu", lambda *_: None)}


def train(made: FinetuneJob) -> list[dict[str, Any]]:
    """Train a model, and return its log."""
    finetune(made, lambda status: None)
    found: list[dict[str, Any]] = pq.read_table(made.folder / "log.parquet").to_pylist()
    return found


def without_dropout(folder: Path, family: str) -> Path:
    """Write the base with dropout 0, and return its folder."""
    path = write_language_base(folder / "base", family) / "config.json"
    config = json.loads(path.read_text())
    off = {name: 0.0 for name in config if "dropout" in name and isinstance(config[name], float)}
    path.write_text(json.dumps(config | off))
    return path.parent


def token_losses(model: Any, tokenizer: Any, family: str, prompt: str, answer: str) -> Tensor:
    """The cross-entropy of each token to learn of one row, by transformers alone."""
    if family == "seq2seq":
        labels = torch.tensor([[*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]])
        return F.cross_entropy(model(**tokenizer(prompt, return_tensors="pt"), labels=labels).logits[0], labels[0])
    before, whole = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (prompt, f"{prompt} {answer}"))
    logits = model(input_ids=whole).logits[0, before.shape[1] - 1 : -1]
    return F.cross_entropy(logits, whole[0, before.shape[1] :])


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_the_first_loss_is_the_cross_entropy_of_the_right_choices_tokens(tmp_path: Path, family: str) -> None:
    base = without_dropout(tmp_path, family)
    log = train(jobs(tmp_path, family, training=WHOLE)["full/kinds"])
    model, tokenizer = AUTO[family].from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    rows = [text_row(i, family) for i in range(24)]
    counts = torch.tensor([len(tokenizer(f" {r['label']}")["input_ids"]) for r in rows])
    if family == "seq2seq":
        counts = torch.tensor([len(tokenizer(r["label"])["input_ids"]) + 1 for r in rows])
    with torch.inference_mode():
        means = torch.stack([token_losses(model, tokenizer, family, r["prompt"], r["label"]) for r in rows])
    assert log[1]["loss"] == pytest.approx(float((means * counts).sum() / counts.sum()), rel=1e-5)


@pytest.mark.parametrize("family", ["seq2seq", "encoder"])
def test_a_batch_in_parts_gives_the_step_of_the_whole_batch(tmp_path: Path, family: str) -> None:
    without_dropout(tmp_path, family)
    methods = {"whole": {"method": "full"}, "parts": {"method": "full", "training": {"forward_size": 7}}}
    made = jobs(tmp_path, family, methods=methods, training={**WHOLE, "label_smoothing": 0.1})
    whole, parts = (train(made[f"{name}/kinds"])[1] for name in methods)
    assert (parts["loss"], parts["grad_norm"]) == pytest.approx((whole["loss"], whole["grad_norm"]), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_changes_the_loss_by_rounding_only(tmp_path: Path, family: str) -> None:
    without_dropout(tmp_path, family)
    backbone = {"family": family, "model": "base", "precision": "bfloat16"}
    methods = {"full": {}, "lora": {}}
    exact = train(jobs(tmp_path, family, training=WHOLE)["full/kinds"])[1]["loss"]
    (tmp_path / "out" / "full").rename(tmp_path / "exact")
    for made in jobs(tmp_path, family, training=WHOLE, backbone=backbone, methods=methods).values():
        loss = train(made)[1]["loss"]
        assert loss == pytest.approx(exact, rel=0.01) and loss != exact
        weights = load_file(next(made.folder.glob("*.safetensors")))
        assert {t.dtype for t in weights.values()} == {torch.float32}


def test_the_first_loss_of_an_encoder_is_that_of_the_bases_prompts(tmp_path: Path) -> None:
    base = without_dropout(tmp_path, "encoder")
    log = train(jobs(tmp_path, "encoder", training={**WHOLE, "label_smoothing": 0.2})["full/kinds"])
    model, tokenizer = AutoModel.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)

    def embedded(text: str) -> Tensor:
        with torch.inference_mode():
            return F.normalize(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0), dim=0)

    rows = [text_row(i, "encoder") for i in range(24)]
    classes = sorted({r["label"] for r in rows})
    logits = 30 * torch.stack([embedded(r["text"]) for r in rows]) @ torch.stack([embedded(c) for c in classes]).T
    log_p = F.log_softmax(logits, dim=1)
    right = log_p[range(24), [classes.index(r["label"]) for r in rows]]
    assert log[1]["loss"] == pytest.approx(float(-(0.8 * right + 0.2 * log_p.mean(dim=1)).mean()), rel=1e-5)


def test_an_answer_is_learned_with_its_end(tmp_path: Path) -> None:
    """Generation stops at the end-of-sequence token, so that a causal model has to learn it."""
    base = without_dropout(tmp_path, "causal")
    rows = [{"prompt": text_row(i, "causal")["prompt"], "answers": [f"It is {i}", "no"]} for i in range(20)]
    for split, part in {"train": rows[:16], "val": rows[16:18], "test": rows[18:]}.items():
        write_rows(tmp_path / "kinds" / f"{split}.jsonl", part)
    tasks = {"kinds": {"source": "./kinds", "options": {"metric": "squad", "max_new_tokens": 4}}}
    log = train(jobs(tmp_path, "causal", tasks=tasks, training={**WHOLE, "batch_size": 16})["full/kinds"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    losses = []
    for r in rows[:16]:
        before = tokenizer(r["prompt"])["input_ids"]
        whole = torch.tensor([[*before, *tokenizer(f" {r['answers'][0]}")["input_ids"], tokenizer.eos_token_id]])
        with torch.inference_mode():
            logits = model(input_ids=whole).logits[0, len(before) - 1 : -1]
        losses.append(F.cross_entropy(logits, whole[0, len(before) :], reduction="none"))
    assert log[1]["loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("family", "method", "more"),
    [
        ("causal", "full", {}),
        ("seq2seq", "lora", {}),  # with dropout
        ("encoder", "full", {"head": "own"}),
    ],
)
def test_a_stopped_training_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, family: str, method: str, more: dict[str, Any]
) -> None:
    training = {"lr": 3e-3, "steps": 6, "batch_size": 8, **more}
    changes: dict[str, Any] = {"methods": {method: {}}, "training": training}
    made = jobs(tmp_path, family, **changes)[f"{method}/kinds"]

    def stop(status: TrainingStatus) -> None:
        if status.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(made, stop)
    assert made.condition() == "started"
    log = train(made)
    assert [r["step"] for r in log if r["val_accuracy"] is not None] == [0, 2, 4, 6]
    stopped = outputs(made.folder)
    made.folder.rename(tmp_path / "stopped")
    train(made)
    assert outputs(made.folder) == stopped


@pytest.mark.parametrize("family", FAMILIES)
def test_the_written_model_is_the_one_that_was_scored(tmp_path: Path, family: str) -> None:
    """It loads with from_pretrained, and as an expert; the accuracy is that of the rounded weights."""
    training = {"lr": 3e-3, "steps": 8, "batch_size": 24}
    made = jobs(tmp_path, family, training=training, save_dtype="bfloat16", checkpoint_every=8)["full/kinds"]
    log = train(made)
    assert log[-1]["loss"] < log[1]["loss"]
    assert {t.dtype for t in load_file(made.folder / "model.safetensors").values()} == {torch.bfloat16}
    backbone = load_base(made.spec, torch.device("cpu")).backbone
    task = load_training_task(made.spec, "kinds", backbone)
    state = backbone.select(read_checkpoint(str(made.folder)).state, "the model")
    loaded = AUTO[family].from_pretrained(made.folder, dtype=torch.float32).state_dict()
    for name, parameter in backbone.module.named_parameters():
        assert torch.equal(loaded[name], state[name].float()), name
        parameter.data = state[name].float()
    result = json.loads((made.folder / "train.json").read_text())
    assert task.evaluate(backbone, "val", 0, 8).stats.mean == result["val_accuracy"]


def test_a_new_head_is_trained_and_written_with_its_encoder(tmp_path: Path) -> None:
    without_dropout(tmp_path, "encoder")
    training = {"lr": 1e-2, "steps": 24, "batch_size": 24, "head": "own"}
    made = jobs(tmp_path, "encoder", training=training, checkpoint_every=24)["full/kinds"]
    log = train(made)
    assert log[-1]["loss"] < 0.8 * log[1]["loss"]
    model = AutoModelForSequenceClassification.from_pretrained(made.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    right = 0
    for i in range(100, 108):
        found = text_row(i, "encoder")
        with torch.inference_mode():
            best = model(**tokenizer(found["text"], return_tensors="pt")).logits.argmax()
        right += model.config.id2label[int(best)] == found["label"]
    assert json.loads((made.folder / "train.json").read_text())["val_accuracy"] == right / 8
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(made.folder / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(after[f"bert.{name}"], before[name])


def write_gpt2(folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=256, eos_token_id=2, pad_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["causal", "seq2seq", "encoder", "gpt2"])
def test_peft_computes_the_same_with_a_written_adapter(tmp_path: Path, kind: str) -> None:
    family = "causal" if kind == "gpt2" else kind
    if kind == "gpt2":  # whose weights are (inputs, outputs)
        write_gpt2(tmp_path / "base")
    made = jobs(tmp_path, family, methods={"lora": {"params": {"rank": 3, "scale": 0.5}}})["lora/kinds"]
    backbone = load_base(made.spec, torch.device("cpu")).backbone
    tuning = tuning_of(backbone, made.run, made.spec.base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, factor in tuning.trained.items():
            if "lora_B" in name:
                factor.copy_(0.2 * torch.randn(factor.shape, generator=generator))
    tokens = torch.arange(3, 23)[None]
    inputs = {"input_ids": tokens, **({"decoder_input_ids": tokens[:, :7]} if family == "seq2seq" else {})}

    def outcome(module: Any) -> Tensor:
        found = module(**inputs)
        return found.last_hidden_state if family == "encoder" else found.logits  # type: ignore[no-any-return]

    with torch.inference_mode():
        plain = outcome(backbone.module)
    weights = tuning.weights()
    assert weights is not None
    ours = _under(backbone.module, weights, lambda: outcome(backbone.module)).detach()
    assert not torch.allclose(ours, plain, atol=1e-2)
    tuning.write(tmp_path, torch.float32)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str((tmp_path / "base").resolve())
    blocks = {"gpt2": 2 * 4, "causal": 2 * 7, "seq2seq": 2 * (4 + 2) + 2 * (8 + 2), "encoder": 3 * 6}
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 2 * blocks[kind]
    base = AUTO[family].from_pretrained(tmp_path / "base").eval()
    model = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    with torch.inference_mode():
        torch.testing.assert_close(outcome(model), ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "first", "last"),
    [
        ("causal", {"model.embed_tokens.weight", "model.layers.0."}, {"model.norm.weight", "model.layers.1."}),
        (
            "seq2seq",
            {"shared.weight", "encoder.block.0.", "decoder.block.0."},
            {"encoder.block.1.", "decoder.block.1.", "encoder.final_layer_norm.", "decoder.final_layer_norm."},
        ),
        ("encoder", {"embeddings.", "encoder.layer.0.", "encoder.layer.1."}, {"encoder.layer.2.", "pooler."}),
    ],
)
def test_only_the_last_block_and_what_is_behind_it_learns(
    tmp_path: Path, family: str, first: set[str], last: set[str]
) -> None:
    spec = load_finetune_spec(write_text_finetune(tmp_path, family))
    backbone = load_base(spec, torch.device("cpu")).backbone
    assert adapter_settings(backbone, "hf:owner/model@main").base == "owner/model"
    rates = language_rates(backbone, METHODS["last_block"], {})
    for name, rate in rates.items():
        assert [name.startswith(tuple(first)), name.startswith(tuple(last))] == [rate == 0, rate == 1], name


def test_texts_of_similar_length_share_a_batch_and_epochs_differ() -> None:
    lengths = [(7 * i) % 101 for i in range(64)]
    batches = EpochBatches(64, FinetuneSettings(lr=1, epochs=2, batch_size=8), lengths)
    plain = EpochBatches(64, FinetuneSettings(lr=1, epochs=2, batch_size=8))

    def epoch(of: EpochBatches, first: int) -> list[list[int]]:
        return [of.rows(step).tolist() for step in range(first, first + 8)]

    def padding(of: EpochBatches) -> int:
        return sum(max(lengths[i] for i in rows) * 8 - sum(lengths[i] for i in rows) for rows in epoch(of, 0))

    assert sorted(sum(epoch(batches, 0), [])) == list(range(64)) == sorted(sum(epoch(batches, 8), []))
    assert epoch(batches, 0) != epoch(batches, 8)
    assert epoch(batches, 0) == epoch(EpochBatches(64, FinetuneSettings(lr=1, epochs=1, batch_size=8), lengths), 0)
    assert padding(batches) * 4 < padding(plain)


@pytest.mark.parametrize("family", ["causal", "encoder"])
def test_scored_rows_are_left_out_of_training_and_cut_texts_counted(
    tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [text_row(i, family) for i in range(20)]
    write_rows(tmp_path / "kinds" / "train.jsonl", [*rows, text_row(103, family), text_row(206, family)])
    option = "max_tokens" if family == "encoder" else "max_prompt_tokens"
    tokenizer = tiny_tokenizer()
    longer = sum(len(tokenizer(r.get("text") or r["prompt"])["input_ids"]) > 40 for r in rows)
    assert 0 < longer < 20
    tasks = {"kinds": {"source": "./kinds", "options": {option: 40}}}
    # Row 206 is a row of test beyond the limit: it must not be learned either.
    spec = load_finetune_spec(write_text_finetune(tmp_path, family, tasks=tasks, limits={"test": 3}))
    with caplog.at_level(logging.WARNING):
        task = load_training_task(spec, "kinds", load_base(spec, torch.device("cpu")).backbone)
    assert [task.num_samples(s) for s in ("train", "val", "test")] == [20, 8, 3]
    assert "2 training rows are in val or test too" in caplog.text
    assert f"{longer} of 20 training" in caplog.text


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("causal", {"training": {**WHOLE, "augment": "jitter"}}, "training.augment: changes images"),
        (
            "causal",
            {"training": {**WHOLE, "head": "own"}},
            "training.head: is for backbone.family: encoder",
        ),
        (
            "encoder",
            {"methods": {"lora": {}}, "training": {**WHOLE, "head": "own"}},
            "an adapter holds no head, so own needs another method than lora",
        ),
        (
            "open_clip",
            {"training": {**WHOLE, "forward_size": 8}},
            "training.forward_size: is for texts, got 8 of full/kinds for open_clip",
        ),
        ("encoder", {"training": {**WHOLE, "head": "owned"}}, "training.head: must be 'frozen' or 'own'"),
    ],
)
def test_a_setting_that_the_family_lacks_is_refused(
    tmp_path: Path, family: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        load_finetune_spec(write_text_finetune(tmp_path, family, **changes))


def test_an_input_that_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="backbone.family: unknown backbone 'casual': did you mean 'causal'"):
        jobs(tmp_path, "causal", backbone={"family": "casual", "model": "base"})
    with pytest.raises(ValueError, match=r"lora/kinds: params.rank: must be in \[1, 16\].*_proj.weight, got 17"):
        jobs(tmp_path, "causal", methods={"lora": {"params": {"rank": 17}}})
    long = {**text_row(0, "causal"), "choices": ["short", "tool " * 300], "label": "tool " * 300}
    write_rows(tmp_path / "kinds" / "train.jsonl", [long])
    with pytest.raises(
        ValueError, match=r"tasks.kinds: .*train.jsonl: row 1: its prompt has \d+ tokens, .* for the longest choice"
    ):
        jobs(tmp_path, "causal")
    write_rows(tmp_path / "kinds" / "train.jsonl", [text_row(100, "causal")])
    with pytest.raises(ValueError, match=r"tasks.kinds: .*kinds: has no training samples"):
        jobs(tmp_path, "causal")
    (tmp_path / "kinds" / "train.jsonl").rename(tmp_path / "kinds" / "training.jsonl")
    spec = load_finetune_spec(tmp_path / "finetune.yaml")
    with pytest.raises(ValueError, match=r"tasks.kinds: .*has no train.jsonl or train.parquet; .*'training.jsonl'"):
        prepare(spec, tmp_path / "out", "cpu", lambda *_: None)


def test_a_target_that_is_longer_than_the_decoder_takes_is_named(tmp_path: Path) -> None:
    write_tiny_seq2seq(tmp_path / "base", bart_config(2, 2))
    row = {"prompt": "a", "choices": ["short", "tool " * 80], "label": 1}
    write_rows(tmp_path / "kinds" / "train.jsonl", [row])
    short = [{"prompt": "What is it?", "choices": ["a", "b"], "label": 0}]
    for split in ("val", "test"):
        write_rows(tmp_path / "kinds" / f"{split}.jsonl", short)
    with pytest.raises(ValueError, match=r"row 1: its target has \d+ tokens, and the model takes at most 64"):
        jobs(tmp_path, "seq2seq")
