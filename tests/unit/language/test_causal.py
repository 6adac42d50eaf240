"""Proves that causal models of transformers, and adapters on them, are read by their module tree alone."""

import json
import re
from pathlib import Path

import pytest
import torch
from causal_models import CPU, built, copied, logits, low_rank, reference
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_language import tiny_tokenizer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.merging.task_vectors import NamedTensors, layer_sizes, task_vector
from tasks.base import Backbone
from tasks.language.causal import CausalBackbone, build
from tasks.lora import ChecksPolicies, TakesAdapters
from tasks.registry import BACKBONES

LLAMA_LIKE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.1}
#: name -> configuration, and the linear modules of a block that an adapter changes
ATTENTION = ("q_proj", "k_proj", "o_proj", "down_proj")
FAMILIES: dict[str, tuple[PreTrainedConfig, tuple[str, ...]]] = {
    "llama": (LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=False), ATTENTION),
    "llama, tied": (LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=True), ATTENTION),
    "gpt2": (GPT2Config(**GPT2), ("c_attn", "c_proj", "c_fc")),
    "gpt2, untied": (GPT2Config(**GPT2, tie_word_embeddings=False), ("c_attn", "c_proj", "c_fc")),
    "qwen2": (Qwen2Config(**LLAMA_LIKE, tie_word_embeddings=True), ATTENTION),
    "qwen3": (Qwen3Config(**LLAMA_LIKE, head_dim=8, tie_word_embeddings=False), ATTENTION),
    "mistral": (MistralConfig(**LLAMA_LIKE), ATTENTION),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random model of the family by save_pretrained."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(FAMILIES[family][0]).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def state(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def backbone(folder: Path, state: dict[str, Tensor]) -> CausalBackbone:
    return build(str(folder), state, CPU, torch.float32)


def names(backbone: CausalBackbone) -> list[str]:
    return [name for name, _ in backbone.module.named_parameters()]


def test_it_computes_what_transformers_loads(backbone: CausalBackbone, folder: Path) -> None:
    assert torch.equal(logits(backbone.module), logits(reference(folder)))
    assert isinstance(backbone, TakesAdapters) and isinstance(backbone, ChecksPolicies)
    protocol: Backbone = backbone
    assert protocol.family == "causal" and backbone.context == 64 and not backbone.module.training
    assert backbone.dtype == torch.float32 and backbone.device == CPU


def test_every_parameter_is_selected_once_with_its_values(
    backbone: CausalBackbone, folder: Path, state: dict[str, Tensor]
) -> None:
    selected = backbone.select(state, "expert")
    assert list(selected) == names(backbone) == [name for name, _ in reference(folder).named_parameters()]
    assert all(torch.equal(selected[name], state[name]) for name in selected)


def test_depth_runs_over_the_blocks_alone(backbone: CausalBackbone, family: str) -> None:
    assert backbone.layer_map.num_blocks == 3
    block = re.compile(r"transformer\.h\.(\d)\." if family.startswith("gpt2") else r"model\.layers\.(\d)\.")
    for name in names(backbone):
        match = block.match(name)
        assert backbone.layer_map.depth(name) == (int(match[1]) / 2 if match else None)
    assert any(backbone.layer_map.depth(name) is None for name in names(backbone))


def test_a_tied_embedding_counts_once(backbone: CausalBackbone, family: str) -> None:
    sizes = layer_sizes(backbone.layer_map, dict(backbone.module.named_parameters()))
    tied = "lm_head.weight" not in names(backbone)
    assert tied == bool(FAMILIES[family][0].tie_word_embeddings)
    positions, norms = (64 * 32, 2 * 32) if family.startswith("gpt2") else (0, 32)
    assert sizes.outside == (1 if tied else 2) * 300 * 32 + positions + norms


def test_checkpoints_of_the_bare_model_and_with_old_buffers_are_known(
    backbone: CausalBackbone, state: dict[str, Tensor]
) -> None:
    prefix = f"{backbone.module.base_model_prefix}."
    bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    assert bare.keys() != state.keys()
    old = {
        "h.0.attn.bias": torch.ones(1, 1, 4, 4),
        f"{prefix}h.0.attn.masked_bias": torch.tensor(-1e4),
        f"{prefix}layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    for given in (bare, bare | old, state | old):
        selected = backbone.select(given, "expert")
        assert all(torch.equal(selected[name], state[name]) for name in names(backbone))


@pytest.mark.parametrize("prefix", ["module.", "net.", "_orig_mod.", "module._orig_mod."])
def test_checkpoints_of_training_programs_are_known(
    backbone: CausalBackbone, state: dict[str, Tensor], prefix: str
) -> None:
    bare = {name.removeprefix(f"{backbone.module.base_model_prefix}."): tensor for name, tensor in state.items()}
    for inner in (state, bare):
        wrapped = {prefix + name: tensor for name, tensor in inner.items()}
        for given in (wrapped, {**wrapped, "n_averaged": torch.tensor(5)}):
            selected = backbone.select(given, "expert")
            assert all(torch.equal(selected[name], state[name]) for name in names(backbone))


@pytest.mark.parametrize("family", ["llama, tied", "gpt2"], indirect=True)
def test_a_second_copy_of_tied_weights_must_be_equal(backbone: CausalBackbone, state: dict[str, Tensor]) -> None:
    assert "lm_head.weight" not in state
    embeddings = next(name for name in state if name.endswith(("embed_tokens.weight", "wte.weight")))
    both = {**state, "lm_head.weight": state[embeddings].clone()}
    assert list(backbone.select(both, "expert")) == names(backbone)
    alone = {name: tensor for name, tensor in both.items() if name != embeddings}
    assert torch.equal(backbone.select(alone, "expert")[embeddings], state[embeddings])
    with pytest.raises(ValueError, match=rf"expert: lm_head.weight differs from {embeddings}, to which .* ties it"):
        backbone.select({**both, "lm_head.weight": state[embeddings] + 1}, "expert")


def adapter_of(folder: Path, to: Path, targets: tuple[str, ...]) -> Path:
    """Save a LoRA adapter by peft, with B other than 0."""
    torch.manual_seed(1)
    adapted = get_peft_model(
        reference(folder), LoraConfig(r=3, lora_alpha=5, target_modules=list(targets), task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(to)
    return to


def test_an_adapters_delta_is_pefts_merged_model_minus_the_base(
    backbone: CausalBackbone, folder: Path, family: str, tmp_path: Path
) -> None:
    targets = FAMILIES[family][1]
    adapter = adapter_of(folder, tmp_path, targets)
    transposed = json.loads((adapter / "adapter_config.json").read_text())["fan_in_fan_out"]
    assert transposed == family.startswith("gpt2")
    delta = low_rank(backbone, adapter)
    weights = [name.removesuffix(".weight") for name in names(backbone) if name.endswith(".weight")]
    assert len(delta.factors) == sum(name.endswith(targets) for name in weights) > 0
    base, merged = reference(folder), PeftModel.from_pretrained(reference(folder), adapter).merge_and_unload()
    expected = task_vector(
        NamedTensors("base", dict(base.named_parameters())), NamedTensors("merged", dict(merged.named_parameters()))
    )
    for name, tensor in delta.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    assert all(delta[name].abs().max() > 0.01 for name in delta.factors)


def test_a_sharded_checkpoint_is_one_model(llama_backbone: CausalBackbone, llama: Path, tmp_path: Path) -> None:
    reference(llama).save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    whole, shards = (llama_backbone.select(read_checkpoint(str(f)).state, "f") for f in (llama, tmp_path))
    assert all(torch.equal(whole[name], shards[name]) for name in whole)


def test_the_module_never_shares_memory_with_the_base(llama: Path) -> None:
    state = read_checkpoint(str(llama)).state
    backbone = build(str(llama), state, CPU, torch.float32)
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for parameter in backbone.module.parameters():
            parameter.zero_()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_weights_take_the_dtype_and_rotary_angles_stay_exact(llama: Path) -> None:
    backbone = built(llama, torch.bfloat16)
    assert {p.dtype for p in backbone.module.parameters()} == {torch.bfloat16} == {backbone.dtype}
    angles = dict(backbone.module.named_buffers())
    assert angles and {buffer.dtype for buffer in angles.values()} == {torch.float32}


def test_the_family_is_registered_and_takes_an_attention_of_transformers(llama: Path) -> None:
    assert BACKBONES["causal"] is build
    module = built(llama, attention="eager").module
    assert isinstance(module, PreTrainedModel) and module.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["llama, tied", "llama"], indirect=True)
def test_experts_with_more_or_fewer_tokens_change_those_of_both(
    folder: Path, state: dict[str, Tensor], family: str, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = built(folder, vocabulary="shared")
    rows = ["model.embed_tokens.weight"] + ["lm_head.weight"] * (family == "llama")
    longer = {**state, **{name: torch.cat([state[name] + 1, torch.ones(4, 32)]) for name in rows}}
    shorter = {**state, **{name: state[name][:290] + 1 for name in rows}}
    if family == "llama, tied":
        longer["lm_head.weight"] = longer[rows[0]].clone()
    for given, count in ((longer, 300), (shorter, 290)):
        selected = backbone.select(given, "expert")
        for name in rows:
            assert torch.equal(selected[name][:count], state[name][:count] + 1)
            assert torch.equal(selected[name][count:], state[name][count:])
    assert "expert: has 304 tokens, the base 300: the first 300 are merged" in caplog.text
    assert "expert: has 290 tokens, the base 300: the first 290 are merged" in caplog.text


def test_a_model_without_positions_has_no_longest_input(llama: Path, tmp_path: Path) -> None:
    mamba = copied(llama, tmp_path / "mamba", "model.safetensors")
    config = MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=2, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(mamba)
    backbone = built(mamba)
    assert backbone.context is None and backbone.layer_map.num_blocks == 2
    torch.testing.assert_close(logits(backbone.module), logits(reference(mamba)))
