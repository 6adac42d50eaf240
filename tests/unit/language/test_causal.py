"""Proves that causal models of transformers, and adapters on them, are read by their module tree alone."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_language import tiny_tokenizer, write_adapter, write_tiny_llama
from torch import Tensor, nn
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
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lora import read_adapter
from pipeline.loading.rewards import as_policy
from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.task_vectors import NamedTensors, layer_sizes, task_vector
from tasks.base import Backbone
from tasks.language.blocks import layer_map
from tasks.language.causal import CausalBackbone, build
from tasks.language.experts import adapter_base, check_same_base
from tasks.lora import ChecksPolicies, TakesAdapters
from tasks.registry import BACKBONES

CPU = torch.device("cpu")
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


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def llama_backbone(llama: Path) -> CausalBackbone:
    return built(llama)


def built(folder: Path, dtype: torch.dtype = torch.float32, **options: object) -> CausalBackbone:
    return build(str(folder), read_checkpoint(str(folder)).state, CPU, dtype, options)


def reference(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, PreTrainedModel)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    tokens = torch.arange(3, 43).reshape(2, 20)
    with torch.inference_mode():
        found: Tensor = model(input_ids=tokens).logits
    return found


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


def low_rank(backbone: CausalBackbone, adapter: Path) -> LowRankDelta:
    found = read_adapter(locate(str(adapter)))
    parts = backbone.weight_parts(found.factors, str(adapter))
    return found.task_vector(parts, {name: p.shape for name, p in backbone.module.named_parameters()})


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


def changed(state: Mapping[str, Tensor], **tensors: Tensor | None) -> dict[str, Tensor]:
    """Replace tensors, or remove them if None; "__" in a keyword means a dot."""
    renamed = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in {**state, **renamed}.items() if tensor is not None}


def test_what_does_not_fit_is_named(llama_backbone: CausalBackbone, llama: Path) -> None:
    state = read_checkpoint(str(llama)).state
    norm, embeddings = "model__norm__weight", "model__embed_tokens__weight"
    for given, message in (
        (changed(state, **{norm: None}), r"missing tensors \(model\.norm\.weight\)"),
        (changed(state, score__weight=torch.ones(2)), r"1 unexpected tensors \(score\.weight\)"),
        (changed(state, **{norm: torch.ones(7)}), r"mis-shaped tensors \(model\.norm\.weight \[7\], expected \[32\]\)"),
        (changed(state, **{norm: torch.ones(32, dtype=torch.int8)}), r"quantised tensors \(model\.norm\.weight"),
        (
            changed(state, **{embeddings: torch.ones(302, 32)}),
            r"another vocabulary: .* has 302 tokens, the model's 300",
        ),
    ):
        with pytest.raises(ValueError, match=f"^expert: .*{message}"):
            llama_backbone.select(given, "expert")
        with pytest.raises(ValueError, match="^base: "):
            build(str(llama), given, CPU, torch.float32)


def test_adapters_of_other_modules_are_refused(llama_backbone: CausalBackbone, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a: changes transformer\.h\.0\.attn\.c_attn, model\.norm: not a linear module"
    ):
        llama_backbone.weight_parts(["transformer.h.0.attn.c_attn", "model.norm"], "a")
    with pytest.raises(ValueError, match=r"a: changes lm_head, whose weight is tied to model\.embed_tokens\.weight"):
        llama_backbone.weight_parts(["lm_head"], "a")
    wide = write_tiny_llama(tmp_path / "wide", hidden=64)
    with pytest.raises(ValueError, match="was it trained on another architecture"):
        low_rank(llama_backbone, write_adapter(tmp_path / "adapter", wide, seed=0))


def copied(folder: Path, to: Path, *without: str) -> Path:
    shutil.copytree(folder, to)
    for name in without:
        (to / name).unlink()
    return to


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_model_that_cannot_be_built_says_why(llama: Path, tmp_path: Path) -> None:
    state = read_checkpoint(str(llama)).state

    def refuses(folder: Path, message: str, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            build(str(folder), state, CPU, torch.float32, options)

    refuses(llama, "^backbone.options.atention: unknown option; did you mean 'attention'", atention="eager")
    refuses(llama, "^backbone.options.trust_remote_code: must be true or false, got 'yes'", trust_remote_code="yes")
    refuses(llama, r"^backbone.options.attention: must be a name \(sdpa, eager, \.\.\.\), got 3", attention=3)
    refuses(llama, "^backbone.model: .*: cannot be read: .*fast", attention="fast")
    refuses(tmp_path / "nowhere", "^backbone.model: .*nowhere: no such folder")
    refuses(copied(llama, tmp_path / "bare", "config.json"), "^backbone.model: .*: has no config.json")
    mute = copied(llama, tmp_path / "mute", "tokenizer.json", "tokenizer_config.json")
    refuses(mute, "^backbone.model: .*: has no tokenizer: expected one of tokenizer.json")
    endless = copied(llama, tmp_path / "endless")
    edit_json(endless / "tokenizer_config.json", eos_token=None)
    refuses(endless, "^backbone.model: tokenizer of .*: has no end-of-sequence token: set one")
    refuses(llama, "^backbone.options.vocabulary: must be equal or shared, got 'all'", vocabulary="all")
    strange = copied(llama, tmp_path / "strange")
    edit_json(strange / "config.json", model_type="no-such-model")
    refuses(strange, "^backbone.model: .*: cannot be read: .*no-such-model")
    for name, content, what in (
        ("tokenizer_config.json", "null", "tokenizer of .*"),
        ("config.json", "[" * 50_000, ".*"),
        ("config.json", '{"model_type": "llama", "num_attention_heads": 0}', ".*"),
    ):
        damaged = copied(llama, tmp_path / f"damaged {name} {len(content)}")
        (damaged / name).write_text(content)
        refuses(damaged, f"^backbone.model: {what}: cannot be read: ")


def test_only_completions_need_a_pad_token(llama: Path, tmp_path: Path) -> None:
    assert as_policy(built(llama)).tokenizer.padding_side == "left"
    for pad, message in ((None, "has no pad token: set one, other than"), ("</s>", "its pad token is its end-of-seq")):
        padless = copied(llama, tmp_path / f"pad {pad}")
        edit_json(padless / "tokenizer_config.json", pad_token=pad)
        backbone = built(padless)
        with pytest.raises(ValueError, match=f"^backbone.model: tokenizer of .*: {message}"):
            as_policy(backbone)


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


def test_a_longer_vocabulary_must_begin_with_the_bases(llama: Path, tmp_path: Path) -> None:
    backbone = built(llama, vocabulary="shared")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path / "longer")
    backbone.check_expert(tmp_path / "longer", "longer")
    other = tiny_tokenizer(290)
    other.add_tokens([f"<{i}>" for i in range(20)])
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"other: was trained with another vocabulary .* 10 of them differ"):
        backbone.check_expert(tmp_path / "other", "other")


def test_a_model_without_positions_has_no_longest_input(llama: Path, tmp_path: Path) -> None:
    mamba = copied(llama, tmp_path / "mamba", "model.safetensors")
    config = MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=2, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(mamba)
    backbone = built(mamba)
    assert backbone.context is None and backbone.layer_map.num_blocks == 2
    torch.testing.assert_close(logits(backbone.module), logits(reference(mamba)))


def test_blocks_are_the_list_with_most_parameters() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))

    model = nn.Module()
    with pytest.raises(ValueError, match="Module: has no nn.ModuleList that could be its residual blocks"):
        layer_map(model)
    model.heads = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.layers = nn.ModuleList([Block(), Block(), Block()])
    found = layer_map(model)
    assert found.num_blocks == 3 and {found.depth(f"layers.{i}.experts.3.weight") for i in range(3)} == {0, 0.5, 1}
    assert found.depth("heads.0.weight") is None
    model.layers.append(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"layers holds blocks of several classes \(Block, Linear\)"):
        layer_map(model)


def test_a_model_with_a_second_tower_is_refused() -> None:
    def tower(depth: int) -> nn.ModuleList:
        return nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 8) for _ in range(depth))

    model = nn.Module()
    model.layers = tower(3)
    assert layer_map(model).num_blocks == 3
    model.vision = nn.ModuleDict({"layers": tower(2)})
    with pytest.raises(ValueError, match=r"Module: has blocks in layers and in vision.layers.0.self_attn"):
        layer_map(model)


def test_a_policy_with_another_vocabulary_is_refused(
    llama_backbone: CausalBackbone, llama: Path, tmp_path: Path
) -> None:
    same = write_adapter(tmp_path / "same", llama, seed=1)
    llama_backbone.check_expert(same, "same")  # no tokenizer of its own
    tiny_tokenizer().save_pretrained(same)
    llama_backbone.check_expert(same, "same")
    other = copied(same, tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(other)
    message = (
        rf"{other}: was trained with another vocabulary than {llama}: 301 tokens instead of 300, 1 of them differ "
        r"\(by number: 300 '<new>' instead of None\)"
    )
    with pytest.raises(ValueError, match=message):
        llama_backbone.check_expert(other, str(other))
    whole = copied(llama, tmp_path / "whole")
    tiny_tokenizer(290).save_pretrained(whole)
    with pytest.raises(ValueError, match="290 tokens instead of 300"):
        llama_backbone.check_expert(whole, "whole")


def test_adapters_of_different_bases_are_refused(llama: Path, tmp_path: Path) -> None:
    sources = {
        name: str(write_adapter(tmp_path / name, llama, seed))
        for seed, name in enumerate(("faithful", "plain", "short"))
    }

    def bases() -> dict[str, str]:
        return {name: adapter_base(Path(source), source) for name, source in sources.items()}

    assert bases()["plain"] == str(llama) and adapter_base(llama, "whole") == ""
    edit_json(Path(sources["short"]) / "adapter_config.json", base_model_name_or_path=f"{llama}/../{llama.name}/")
    check_same_base({"whole": "", **bases()})
    edit_json(Path(sources["short"]) / "adapter_config.json", base_model_name_or_path=None)
    check_same_base(bases())
    edit_json(Path(sources["plain"]) / "adapter_config.json", base_model_name_or_path="other/base")
    message = (
        rf"experts\.plain: its adapter was trained on other/base, that of experts\.faithful on {llama}: .*train both"
    )
    with pytest.raises(ValueError, match=message):
        check_same_base(bases())
    (Path(sources["plain"]) / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json: not JSON"):
        check_same_base(bases())


def test_a_model_that_was_saved_with_nan_is_no_checkpoint(llama: Path, tmp_path: Path) -> None:
    broken = copied(llama, tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    state["model.norm.weight"][3] = torch.nan
    save_file(state, broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinite values in model\.norm\.weight"):
        built(broken)
