"""Proves that files of models whose tensors transformers renames or joins are read like all others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_language import tiny_tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPTNeoXConfig, JambaConfig, MixtralConfig

from tasks.language.causal import CausalBackbone, build

_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "num_experts": 2}
#: name -> configuration, a name in files, and the module's name for it
FAMILIES: dict[str, tuple[Any, str, str]] = {
    "gpt-neox": (GPTNeoXConfig(**_SIZES), "embed_out.weight", "lm_head.weight"),
    "mixtral": (
        MixtralConfig(**_SIZES, num_key_value_heads=2, num_local_experts=3),
        "model.layers.1.block_sparse_moe.experts.2.w2.weight",
        "model.layers.1.mlp.experts.down_proj",
    ),
    "jamba": (
        JambaConfig(**_SIZES, **_JAMBA, num_key_value_heads=2, mamba_d_state=4, mamba_dt_rank=4),
        "model.layers.1.feed_forward.experts.1.down_proj.weight",
        "model.layers.1.feed_forward.experts.down_proj",
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    return build(str(folder), state, torch.device("cpu"), torch.float32)


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(input_ids=torch.arange(3, 23)[None]).logits
    return found


def test_it_computes_what_transformers_loads(backbone: CausalBackbone, folder: Path) -> None:
    assert torch.equal(logits(backbone.module), logits(AutoModelForCausalLM.from_pretrained(folder).eval()))


def test_an_expert_in_its_own_precision_and_in_wrappers_is_converted(
    backbone: CausalBackbone, state: dict[str, Tensor], family: str
) -> None:
    _, saved, ours = FAMILIES[family]
    changed = {name: (tensor * 2).bfloat16() for name, tensor in state.items()}
    old = {"model.layers.0.attention.masked_bias": torch.tensor(True), "rotary_emb.inv_freq": torch.ones(2)}
    for given in (changed, changed | old, {f"module.{name}": tensor for name, tensor in changed.items()}):
        selected = backbone.select(given, "expert")
        assert list(selected) == [name for name, _ in backbone.module.named_parameters()]
        assert saved in changed and saved not in selected
        found = selected[ours] if family == "gpt-neox" else selected[ours][-1]
        assert torch.equal(found, changed[saved]) and found.dtype == torch.bfloat16


def test_what_no_conversion_fits_is_refused_by_the_files_names(
    backbone: CausalBackbone, state: dict[str, Tensor], family: str
) -> None:
    saved = FAMILIES[family][1]
    whole = {name: tensor.to(torch.int8) for name, tensor in state.items()}
    for given in (
        {name: tensor for name, tensor in state.items() if name != saved},
        {**state, "score.weight": torch.ones(2)},
        {**state, saved: torch.ones(3)},
        whole,
    ):
        with pytest.raises(ValueError, match=r"^expert: is not a checkpoint of this architecture"):
            backbone.select(given, "expert")
