"""Proves the depth of every parameter of 24 architectures against a table that is written by hand."""

import re
from typing import Any

import pytest
import torch
import transformers as hf
from tiny_language import bart_config, t5_config

from tasks.language.blocks import encoder_decoder_map, layer_map

_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA = _SIZES | {"num_key_value_heads": 2}
_GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 3, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
_MIXER = {"mamba_n_heads": 4, "mamba_n_groups": 1, "mamba_d_state": 4}
_OPT = {k: v for k, v in _SIZES.items() if k != "intermediate_size"} | {"ffn_dim": 48, "word_embed_proj_dim": 32}
_MAMBA = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 3, "state_size": 4}
_ZAMBA = _LLAMA | {"num_hidden_layers": 4, "num_key_value_heads": 4, "num_mem_blocks": 1, "n_mamba_heads": 4}
_ZAMBA |= {"layers_block_type": ["mamba", "hybrid"] * 2, "hybrid_layer_ids": [1, 3], "mamba_ngroups": 1}
_JAMBA = {"attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2, "num_experts": 2}

_NORMED = ("model.embed_tokens.", "model.norm.", "lm_head.")
_GPT = ("transformer.wte.", "transformer.wpe.", "transformer.ln_f.")
_BERT = ("embeddings.", "pooler.")
_LAYERS = r"model\.layers\.(\d)\."
#: architecture -> configuration, pattern of its blocks, and how the names outside the blocks begin
CAUSAL: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "Llama": (hf.LlamaConfig(**_LLAMA), _LAYERS, _NORMED),
    "Qwen2": (hf.Qwen2Config(**_LLAMA), _LAYERS, _NORMED),
    "Qwen3": (hf.Qwen3Config(**_LLAMA, head_dim=8), _LAYERS, _NORMED),
    "Mistral": (hf.MistralConfig(**_LLAMA), _LAYERS, _NORMED),
    "GPT-2": (hf.GPT2Config(**_GPT2, n_positions=64), r"transformer\.h\.(\d)\.", _GPT),
    "GPT-NeoX": (
        hf.GPTNeoXConfig(**_SIZES),
        r"gpt_neox\.layers\.(\d)\.",
        ("gpt_neox.embed_in.", "gpt_neox.final_layer_norm.", "lm_head."),
    ),
    "Gemma": (hf.GemmaConfig(**_LLAMA, head_dim=8), _LAYERS, _NORMED[:2]),
    "Gemma 3": (hf.Gemma3TextConfig(**_LLAMA, head_dim=8), _LAYERS, _NORMED[:2]),
    "Phi": (hf.PhiConfig(**_SIZES), _LAYERS, ("model.embed_tokens.", "model.final_layernorm.", "lm_head.")),
    "OPT": (
        hf.OPTConfig(**_OPT),
        r"model\.decoder\.layers\.(\d)\.",
        ("model.decoder.embed_tokens.", "model.decoder.embed_positions.", "model.decoder.final_layer_norm."),
    ),
    "Mixtral, a mixture of experts": (hf.MixtralConfig(**_LLAMA, num_local_experts=3), _LAYERS, _NORMED),
    "Falcon-H1, attention and state space in each block": (
        hf.FalconH1Config(**_LLAMA, **_MIXER, mamba_d_ssm=32, mamba_d_head=8),
        _LAYERS,
        ("model.embed_tokens.", "model.final_layernorm.", "lm_head."),
    ),
    "Jamba, blocks of two classes": (
        hf.JambaConfig(**_LLAMA, **_JAMBA, mamba_d_state=4, mamba_dt_rank=4),
        _LAYERS,
        ("model.embed_tokens.", "model.final_layernorm.", "lm_head."),
    ),
    "Mamba": (
        hf.MambaConfig(**_MAMBA),
        r"backbone\.layers\.(\d)\.",
        ("backbone.embeddings.", "backbone.norm_f."),
    ),
    "Zamba 2, one attention shared by two blocks": (
        hf.Zamba2Config(**_ZAMBA, mamba_d_state=4),
        r"model\.layers\.(\d)\.(?!shared_transformer\.)",
        ("model.embed_tokens.", "model.final_layernorm.", "model.layers.1.shared_transformer."),
    ),
}
ENCODERS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "BERT": (hf.BertConfig(**_SIZES), r"encoder\.layer\.(\d)\.", _BERT),
    "RoBERTa": (hf.RobertaConfig(**_SIZES), r"encoder\.layer\.(\d)\.", _BERT),
    "ModernBERT": (
        hf.ModernBertConfig(**_SIZES, cls_token_id=1, sep_token_id=2),
        r"layers\.(\d)\.",
        ("embeddings.", "final_norm."),
    ),
    "DeBERTa v2": (
        hf.DebertaV2Config(**_SIZES, relative_attention=True, position_buckets=8),
        r"encoder\.layer\.(\d)\.",
        ("embeddings.", "encoder.rel_embeddings."),
    ),
    "MPNet": (hf.MPNetConfig(**_SIZES), r"encoder\.layer\.(\d)\.", (*_BERT, "encoder.relative_attention_bias.")),
}
_T5 = ("shared.", "encoder.final_layer_norm.", "decoder.final_layer_norm.")
_BART = tuple(
    f"model.{part}"
    for part in ("shared.", *(f"{s}.{n}" for s in ("encoder", "decoder") for n in ("embed_p", "layern")))
)
_SWITCH = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 4}
ENCODER_DECODERS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "T5": (t5_config(), r"{}\.block\.(\d)\.", _T5),
    "T5 1.1": (t5_config(tied=False), r"{}\.block\.(\d)\.", _T5),
    "Switch, a mixture of experts": (
        hf.SwitchTransformersConfig(vocab_size=300, **_SWITCH, num_sparse_encoder_layers=1, num_experts=2),
        r"{}\.block\.(\d)\.",
        _T5,
    ),
    "BART": (bart_config(), r"model\.{}\.layers\.(\d)\.", _BART),
}


def empty(auto: Any, config: Any) -> Any:
    with torch.device("meta"):
        return auto.from_config(config)


def check(module: Any, found: Any, pattern: str, outside: tuple[str, ...]) -> None:
    """Compare every parameter with the table: it is in a block, or its name is listed outside them."""
    block = re.compile(pattern)
    used = set()
    for name, _ in module.named_parameters():
        match = block.match(name)
        if not match:
            used |= (begins := {start for start in outside if name.startswith(start)})
            assert begins, f"{name} is in no row of the table"
        assert found.depth(name) == (int(match[1]) / (found.num_blocks - 1) if match else None), name
    assert used == set(outside)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_models(name: str) -> None:
    config, pattern, outside = CAUSAL[name]
    module = empty(hf.AutoModelForCausalLM, config)
    found = layer_map(module)
    assert found.num_blocks == config.num_hidden_layers
    check(module, found, pattern, outside)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name: str) -> None:
    config, pattern, outside = ENCODERS[name]
    module = empty(hf.AutoModel, config)
    found = layer_map(module)
    assert found.num_blocks == 3
    check(module, found, pattern, outside)


@pytest.mark.parametrize("scaled", ["decoder", "encoder", "both"])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders(name: str, scaled: Any) -> None:
    config, pattern, outside = ENCODER_DECODERS[name]
    module = empty(hf.AutoModelForSeq2SeqLM, config)
    found = encoder_decoder_map(module, scaled)
    assert found.num_blocks == 3
    inside = "(?:encoder|decoder)" if scaled == "both" else scaled
    other = {"decoder": "encoder", "encoder": "decoder", "both": None}[scaled]
    prefix = "model." if name == "BART" else ""
    stack = () if other is None else (f"{prefix}{other}.{'layers' if name == 'BART' else 'block'}.",)
    check(module, found, pattern.format(inside), (*outside, *stack))
