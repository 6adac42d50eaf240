"""Proves that encoder-decoders are read by their module tree: either stack is scaled, tied weights count once."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_models import low_rank
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_language import bart_config, t5_config, tiny_tokenizer, write_tiny_llama, write_tiny_seq2seq
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.export.policy import write_language_model
from pipeline.merging.resident import ResidentModel
from pipeline.merging.task_vectors import NamedTensors, layer_sizes, task_vector
from pipeline.recipe import Recipe
from tasks.base import Backbone
from tasks.language.seq2seq import Seq2SeqBackbone, build
from tasks.lora import ChecksPolicies, TakesAdapters
from tasks.registry import BACKBONES

CPU = torch.device("cpu")
#: name -> configuration with 3 blocks each, and the linear modules that an adapter changes
FAMILIES = {
    "t5": (t5_config(), ("q", "v", "wo")),
    "t5 1.1": (t5_config(tied=False), ("q", "v", "wi_1")),
    "bart": (bart_config(), ("q_proj", "v_proj", "fc2")),
}
BLOCK = r"(?:model\.)?{}\.(?:block|layers)\.(\d)\."


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_seq2seq(tmp_path_factory.mktemp("model"), FAMILIES[family][0])


@pytest.fixture(scope="module")
def state(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Seq2SeqBackbone:
    return built(folder)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_seq2seq(tmp_path_factory.mktemp("t5"), t5_config())


def built(folder: Path, dtype: torch.dtype = torch.float32, **options: object) -> Seq2SeqBackbone:
    return build(str(folder), read_checkpoint(str(folder)).state, CPU, dtype, options)


def reference(folder: Path) -> PreTrainedModel:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert isinstance(model, PreTrainedModel)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    tokens = torch.arange(3, 43).reshape(2, 20)
    with torch.inference_mode():
        found: Tensor = model(input_ids=tokens, decoder_input_ids=tokens[:, :7]).logits
    return found


def names(backbone: Seq2SeqBackbone) -> list[str]:
    return [name for name, _ in backbone.module.named_parameters()]


def test_it_computes_what_transformers_loads(backbone: Seq2SeqBackbone, folder: Path, family: str) -> None:
    assert torch.equal(logits(backbone.module), logits(reference(folder)))
    assert isinstance(backbone, TakesAdapters) and isinstance(backbone, ChecksPolicies)
    protocol: Backbone = backbone
    assert protocol.family == "seq2seq" and not backbone.module.training
    assert backbone.context == (64 if family == "bart" else None)
    assert backbone.start == (2 if family == "bart" else 0)
    assert BACKBONES["seq2seq"] is build


@pytest.mark.parametrize("scaled", ["decoder", "encoder", "both"])
def test_depth_runs_over_the_scaled_stacks_alone(folder: Path, scaled: str) -> None:
    backbone = built(folder, scaled=scaled)
    assert backbone.layer_map.num_blocks == 3
    pattern = re.compile(BLOCK.format("(?:encoder|decoder)" if scaled == "both" else scaled))
    for name in names(backbone):
        match = pattern.match(name)
        assert backbone.layer_map.depth(name) == (int(match[1]) / 2 if match else None), name
    inside = sum(bool(pattern.match(name)) for name in names(backbone))
    assert 0 < inside == len(backbone.layer_map.blocks) < len(names(backbone))


def test_stacks_of_different_lengths_have_depths_of_their_own(tmp_path: Path) -> None:
    backbone = built(write_tiny_seq2seq(tmp_path, t5_config(encoder=4, decoder=3)), scaled="both")
    for stack, last in (("encoder", 3), ("decoder", 2)):
        for block in range(last + 1):
            depth = backbone.layer_map.depth(f"{stack}.block.{block}.layer.0.layer_norm.weight")
            assert depth == pytest.approx(block / last)
    sizes = layer_sizes(backbone.layer_map, dict(backbone.module.named_parameters()))
    assert len(sizes.blocks) == 7 and sum(sizes.blocks) + sizes.outside == sum(
        p.numel() for p in backbone.module.parameters()
    )


def test_the_scaled_stack_is_part_of_the_identity(t5: Path) -> None:
    inputs = [built(t5, **options).inputs for options in ({}, {"scaled": "decoder"}, {"scaled": "both"})]
    assert inputs[0] == inputs[1] != inputs[2]


def test_tied_weights_count_once(backbone: Seq2SeqBackbone, family: str) -> None:
    sizes = layer_sizes(backbone.layer_map, dict(backbone.module.named_parameters()))
    encoder = sum(p.numel() for n, p in backbone.module.named_parameters() if re.match(BLOCK.format("encoder"), n))
    rest = {"t5": 2 * 32, "t5 1.1": 2 * 32 + 300 * 32, "bart": 2 * 66 * 32 + 4 * 32}
    assert sizes.outside == 300 * 32 + encoder + rest[family]


def test_every_layout_gives_the_same_tensors(backbone: Seq2SeqBackbone, state: dict[str, Tensor], family: str) -> None:
    """As MaTS saves it (`transformer.`, every copy of the embeddings), DDP, the bare model, and T5's unused table."""
    shared = "model.shared.weight" if family == "bart" else "shared.weight"
    head = {} if "lm_head.weight" in state else {"lm_head.weight": state[shared]}
    stem = shared.removesuffix("shared.weight")
    copies = {f"{stem}{part}.embed_tokens.weight": state[shared].clone() for part in ("encoder", "decoder")}
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    full = {**state, **copies, **head}
    if family != "bart":
        full[unused] = torch.ones(8, 4)
    for given in (
        full,
        {f"transformer.{name}": tensor for name, tensor in full.items()},
        {f"module.{name}": tensor for name, tensor in state.items()},
        {name: tensor for name, tensor in full.items() if name != shared},
    ):
        selected = backbone.select(given, "expert")
        assert list(selected) == names(backbone)
        assert all(torch.equal(selected[name], state[name]) for name in selected)


def test_what_a_file_has_too_much_is_named_also_within_a_wrapper(
    backbone: Seq2SeqBackbone, state: dict[str, Tensor]
) -> None:
    wrapped = {f"transformer.{name}": tensor for name, tensor in state.items()}
    for given in (state, wrapped):
        with pytest.raises(ValueError, match=r"^expert: .* 1 unexpected tensors \(score.weight\)"):
            backbone.select({**given, "score.weight": torch.ones(2)}, "expert")


def test_a_pickle_with_a_wrapper_and_duplicates_is_a_base(folder: Path, tmp_path: Path) -> None:
    whole = reference(folder)
    shutil.copytree(folder, tmp_path / "bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    state = {f"transformer.{name}": tensor for name, tensor in whole.state_dict().items()}
    torch.save(state, tmp_path / "bin" / "pytorch_model.bin")
    assert torch.equal(logits(built(tmp_path / "bin").module), logits(whole))


def test_an_adapters_delta_is_pefts_merged_model_minus_the_base(
    backbone: Seq2SeqBackbone, folder: Path, family: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    targets = FAMILIES[family][1]
    config = LoraConfig(r=3, lora_alpha=5, target_modules=list(targets), task_type="SEQ_2_SEQ_LM")
    adapted = get_peft_model(reference(folder), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(tmp_path)
    delta = low_rank(backbone, tmp_path)
    base, merged = reference(folder), PeftModel.from_pretrained(reference(folder), tmp_path).merge_and_unload()
    expected = task_vector(
        NamedTensors("base", dict(base.named_parameters())), NamedTensors("merged", dict(merged.named_parameters()))
    )
    for name, tensor in delta.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    assert len(delta.factors) > 6 and all(delta[name].abs().max() > 0.01 for name in delta.factors)


def test_shards_are_one_model(t5: Path, tmp_path: Path) -> None:
    reference(t5).save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    backbone = built(t5)
    whole, shards = (backbone.select(read_checkpoint(str(f)).state, "f") for f in (t5, tmp_path))
    assert all(torch.equal(whole[name], shards[name]) for name in whole)


def test_all_weights_take_the_dtype(t5: Path) -> None:
    backbone = built(t5, torch.bfloat16)
    assert backbone.dtype == torch.bfloat16 and logits(backbone.module).isfinite().all()


def test_an_expert_with_another_output_than_its_tied_base_is_refused(t5: Path) -> None:
    backbone, state = built(t5), load_file(t5 / "model.safetensors")
    with pytest.raises(ValueError, match=r"expert: lm_head.weight differs from shared.weight, to which the model's"):
        backbone.select({**state, "lm_head.weight": state["shared.weight"] + 1}, "expert")


def test_a_model_that_cannot_be_built_says_why(t5: Path, tmp_path: Path) -> None:
    state = load_file(t5 / "model.safetensors")

    def refuses(folder: Path, message: str, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            build(str(folder), state, CPU, torch.float32, options)

    refuses(
        t5, "^backbone.options.scaled: must be decoder, encoder or both, got 'decodr'; did you mean", scaled="decodr"
    )
    refuses(t5, "^backbone.options.scald: unknown option; did you mean 'scaled'", scald="both")
    refuses(write_tiny_llama(tmp_path / "llama"), "^backbone.model: .*llama: .*not an encoder-decoder.*family: causal")
    mute = shutil.copytree(t5, tmp_path / "mute")
    (mute / "tokenizer.json").unlink()
    (mute / "tokenizer_config.json").unlink()
    refuses(mute, "^backbone.model: .*mute: has no tokenizer: expected one of tokenizer.json")
    padless = shutil.copytree(t5, tmp_path / "padless")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(padless)
    refuses(padless, "^backbone.model: tokenizer of .*: has no pad token: set one, and save the tokenizer with it")
    startless = shutil.copytree(t5, tmp_path / "startless")
    config = json.loads((startless / "config.json").read_text())
    (startless / "config.json").write_text(json.dumps({k: v for k, v in config.items() if "start" not in k}))
    refuses(startless, "^backbone.model: T5For.*: its config.json has no decoder_start_token_id: add the token")


def test_an_export_loads_as_the_model_that_was_scored(backbone: Seq2SeqBackbone, tmp_path: Path) -> None:
    """Also T5 1.1, whose output weights the configuration ties."""
    parts = write_language_model(tmp_path, backbone)
    assert torch.equal(logits(reference(tmp_path)), logits(backbone.module))
    edited = sum(part.parameters for part in parts)
    assert edited == sum(p.numel() for p in backbone.module.parameters())
    assert built(tmp_path).inputs and (tmp_path / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("scaled", "lambdas"),
    [
        ("decoder", {"encoder": [0.3] * 4, "decoder": [0.2, 0.7, 1.2], "shared": 0.3}),
        ("both", {"encoder": [0.2, 0.2 + 1 / 3, 0.2 + 2 / 3, 1.2], "decoder": [0.2, 0.7, 1.2], "shared": 0.3}),
    ],
)
def test_the_unscaled_stack_gets_the_lambda_outside_the_blocks(
    scaled: str, lambdas: dict[str, Any], tmp_path: Path
) -> None:
    """Lambda of stacks of 4 and 3 blocks is 0.2 + 1.0 d, and 0.3 outside."""
    backbone = built(write_tiny_seq2seq(tmp_path, t5_config(encoder=4, decoder=3)), scaled=scaled)
    base = {name: p.detach().clone() for name, p in backbone.module.named_parameters()}
    tau = {name: torch.randn(tensor.shape) for name, tensor in base.items()}
    resident = ResidentModel(backbone.module, backbone.layer_map, base, {"a": tau}, CPU, torch.float32)
    resident.materialise(Recipe.make("single", "linear", 0.2, 1.0, params={"lambda_outside": 0.3}))
    for name, parameter in backbone.module.named_parameters():
        match = re.match(r"(encoder|decoder)\.block\.(\d)\.", name)
        expected = lambdas[match[1]][int(match[2])] if match else lambdas["shared"]
        torch.testing.assert_close(parameter, base[name] + expected * tau[name], rtol=1e-6, atol=1e-6)
