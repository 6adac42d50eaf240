"""Proves that fine-tuned language models resume with the same bits, load as experts and in transformers and peft."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from small_finetune import outputs
from small_texts import text_row, write_text_finetune
from text_finetune import AUTO, FAMILIES, jobs, train, without_dropout
from tiny_language import tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.train.finetune.language import adapter_settings, language_rates
from pipeline.train.finetune.learners import _under
from pipeline.train.finetune.methods import METHODS
from pipeline.train.finetune.preparation import load_base, load_training_task
from pipeline.train.finetune.selection import tuning_of
from pipeline.train.finetune.spec import load_finetune_spec
from pipeline.train.finetune.trainer import finetune
from pipeline.train.job import TrainingStatus

pytestmark = pytest.mark.training


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
