"""Proves that BERT-like encoders are read without their heads, and score texts by prompts or by classifiers' heads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_language import bert_config, tiny_tokenizer, write_tiny_encoder, write_tiny_llama
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
)

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lora import Adapter, read_adapter
from tasks.language.encoder import EncoderBackbone, build
from tasks.lora import ChecksPolicies, TakesAdapters
from tasks.registry import BACKBONES

CPU = torch.device("cpu")
_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "initializer_range": 0.1,
}
_MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
#: name -> configuration, and its context
FAMILIES: dict[str, tuple[Any, int]] = {
    "bert": (bert_config(), 128),
    "roberta": (RobertaConfig(**_SIZES, pad_token_id=1), 128),
    "distilbert": (
        DistilBertConfig(vocab_size=300, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=128),
        128,
    ),
    "modernbert": (ModernBertConfig(**_SIZES, **_MODERN), 130),
}


def built(folder: Path, dtype: torch.dtype = torch.float32, **options: object) -> EncoderBackbone:
    return build(str(folder), read_checkpoint(str(folder)).state, CPU, dtype, options)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("bare"), FAMILIES[family][0])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("bert"), bert_config())


def hidden(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(input_ids=torch.arange(3, 43).reshape(2, 20)).last_hidden_state
    return found


def test_it_computes_what_transformers_loads(folder: Path, family: str) -> None:
    backbone = built(folder)
    reference = AutoModel.from_pretrained(folder).eval()
    torch.testing.assert_close(hidden(backbone.module), hidden(reference), rtol=0, atol=1e-6)
    assert isinstance(backbone, TakesAdapters) and isinstance(backbone, ChecksPolicies)
    assert (backbone.family, backbone.context, backbone.layer_map.num_blocks) == ("encoder", FAMILIES[family][1], 3)
    assert BACKBONES["encoder"] is build


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModelForSequenceClassification])
def test_the_heads_of_checkpoints_are_left_out(family: str, auto: Any, tmp_path: Path) -> None:
    headed = write_tiny_encoder(tmp_path, FAMILIES[family][0], auto, seed=1)
    backbone = built(headed)
    state = {f"module.{name}": tensor for name, tensor in load_file(headed / "model.safetensors").items()}
    body = AutoModel.from_pretrained(headed)
    expected = dict(body.named_parameters())
    for given in (state, read_checkpoint(str(headed)).state):
        selected = backbone.select(given, "expert")
        assert list(selected) == [name for name, _ in backbone.module.named_parameters()]
        assert all(torch.equal(selected[name], expected[name]) for name in selected)
    assert {n.partition(".")[0] for n in expected.keys() - selected.keys()} <= {"pooler"}
    kept = family == "bert" and auto is AutoModelForSequenceClassification
    assert any(name.startswith("pooler.") for name in selected) == kept


def test_missing_tensors_are_not_taken_for_a_head(bert: Path) -> None:
    state = {f"bert.{name}": tensor for name, tensor in load_file(bert / "model.safetensors").items()}
    with pytest.raises(ValueError, match=r"expert: .* 1 missing tensors \(encoder.layer.0.output.LayerNorm.bias\)"):
        built(bert).select({n: t for n, t in state.items() if "layer.0.output.LayerNorm.bias" not in n}, "expert")
    with pytest.raises(ValueError, match=r"expert: .* 1 unexpected tensors \(bert.encoder.layer.3.bias\)"):
        built(bert).select({**state, "bert.encoder.layer.3.bias": torch.ones(2)}, "expert")


def test_an_embedding_is_the_mean_over_the_tokens_without_padding(bert: Path) -> None:
    backbone = built(bert)
    tokens = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    mask = (tokens != 0).long()
    found = backbone.embed({"input_ids": tokens, "attention_mask": mask})
    with torch.inference_mode():
        first = backbone.module(input_ids=tokens[:1, :3]).last_hidden_state[0]
    torch.testing.assert_close(found[0], F.normalize(first.mean(dim=0), dim=0), rtol=0, atol=1e-6)
    cls = built(bert, pooling="cls").embed({"input_ids": tokens, "attention_mask": mask})
    torch.testing.assert_close(cls[0], F.normalize(first[0], dim=0), rtol=0, atol=1e-6)


def test_a_model_that_cannot_be_built_says_why(bert: Path, tmp_path: Path) -> None:
    state = read_checkpoint(str(bert)).state
    shutil.copytree(bert, tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mute" / name).unlink()
    shutil.copytree(bert, tmp_path / "longer")
    longer = tiny_tokenizer()
    longer.add_tokens(["<new>"])
    longer.save_pretrained(tmp_path / "longer")
    llama = write_tiny_llama(tmp_path / "llama")
    for model, message, options in (
        (tmp_path / "mute", "backbone.model: .*mute: has no tokenizer", {}),
        (tmp_path / "longer", "backbone.model: tokenizer of .*longer: has 301 tokens, but the model 300: is it", {}),
        (llama, "backbone.model: .*: a model of type 'llama' is not an encoder: set backbone.family: causal", {}),
        (bert, "backbone.options.pooling: must be mean or cls, got 'max'", {"pooling": "max"}),
    ):
        with pytest.raises(ValueError, match=message):
            build(str(model), state, CPU, torch.float32, options)


def adapted(model: Any, to: Path, kind: str) -> Path:
    """Save a LoRA adapter by peft, with B other than 0."""
    torch.manual_seed(2)
    found = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["query", "value"], task_type=kind))
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    found.save_pretrained(to)
    return to


def test_an_adapters_delta_is_pefts_merged_model_minus_the_base(bert: Path, tmp_path: Path) -> None:
    backbone = built(bert)
    adapter = adapted(AutoModel.from_pretrained(bert), tmp_path, "FEATURE_EXTRACTION")
    merged = PeftModel.from_pretrained(AutoModel.from_pretrained(bert), adapter).merge_and_unload()
    found = read_adapter(locate(str(adapter)))
    wrapped = {f"bert.{module}": factor for module, factor in found.factors.items()}  # trained below a head
    for factors in (found.factors, wrapped):
        parts = backbone.weight_parts(factors, "adapter")
        shapes = {name: p.shape for name, p in backbone.module.named_parameters()}
        delta = Adapter("adapter", factors).task_vector(parts, shapes)
        assert len(delta.factors) == 6
        for name, parameter in backbone.module.named_parameters():
            expected = merged.get_parameter(name) - parameter
            torch.testing.assert_close(delta[name], expected, rtol=0, atol=1e-6)


def test_an_adapter_of_a_classifier_says_how_it_is_merged(bert: Path, tmp_path: Path) -> None:
    """It holds the classifier's head, besides factors."""
    adapter = adapted(AutoModelForSequenceClassification.from_pretrained(bert), tmp_path, "SEQ_CLS")
    with pytest.raises(ValueError, match="modules_to_save: must be unset, .* call merge_and_unload"):
        read_adapter(locate(str(adapter)))
