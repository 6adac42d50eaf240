"""Proves that language models learn the tokens that are scored: the first loss is that of transformers alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_texts import text_row, write_rows
from text_finetune import AUTO, FAMILIES, WHOLE, jobs, train, without_dropout
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.training


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
