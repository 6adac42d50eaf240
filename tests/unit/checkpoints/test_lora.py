"""Proves that an adapter of peft is the task vector that peft itself merges; all but plain LoRA is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lora import adapter_fingerprint
from pipeline.loading.experts import load_checkpoints
from pipeline.merging.low_rank import LowRankDelta
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.train.lora import LoraTuning
from tasks.vision.clip.architectures import create

CPU = torch.device("cpu")
CONFIG, FACTORS = "adapter_config.json", "adapter_model.safetensors"
BLOCK = "transformer.resblocks.2."


def tower() -> nn.Module:
    """The image tower of the embedded base."""
    module: nn.Module = load_checkpoints(spec("unused"), CPU)[0].backbone.module
    return module


def spec(expert: object) -> RunSpec:
    return parse_spec(
        {
            "name": "adapters",
            "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
            "base": "embedded/base",
            "experts": {"mnist": str(expert)},
            "tasks": ["mnist"],
            "arms": {"fine-tuned": {"edit": "each_expert"}},
        }
    )


def trained(module: nn.Module, folder: Path, *targets: str, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """Write an adapter of `module` with random factors to `folder`; return the change of each parameter by peft."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    model = peft.get_peft_model(module, peft.LoraConfig(target_modules=list(targets), **{"r": 4, **options}))
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=noise))
    model.save_pretrained(folder)
    after = dict(model.merge_and_unload().named_parameters())
    return {name: after[name].detach() - tensor for name, tensor in before.items()}


def task_vector(folder: Path) -> LowRankDelta:
    """The expert's, by way of a spec."""
    run = spec(folder)
    delta = next(load_checkpoints(run, CPU)[1]).delta
    assert isinstance(delta, LowRankDelta)
    return delta


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


PEFT_OPTIONS: dict[str, dict[str, Any]] = {
    "alpha / r": {"lora_alpha": 16},
    "rank-stabilised": {"lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "lora_alpha": 6,
        "rank_pattern": {"c_fc": 2, r"resblocks\.[01]\.attn": 3},
        "alpha_pattern": {r"resblocks\.0\.mlp\.c_fc": 12, "attn": 5},
    },
}


@pytest.mark.parametrize("options", PEFT_OPTIONS)
def test_equals_what_peft_merges_into_open_clips_tower(tmp_path: Path, options: str) -> None:
    expected = trained(tower(), tmp_path, "attn", "c_fc", "c_proj", **PEFT_OPTIONS[options])
    found = task_vector(tmp_path)
    assert_equal(found, expected)
    changed = {name for name, tensor in expected.items() if tensor.any()}
    assert changed == set(found.factors)
    ends = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert {name for name in changed if name.startswith(BLOCK)} == {BLOCK + end for end in ends}


def test_the_merged_tower_is_what_peft_computed_before(tmp_path: Path) -> None:
    """Peft adds the change of an attention's output twice, in training too: a later version may not."""
    model = peft.get_peft_model(tower(), peft.LoraConfig(r=4, target_modules=["attn"])).eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=noise))
    model.save_pretrained(tmp_path)
    plain, image, found = tower(), torch.randn(2, 3, 32, 32, generator=noise), task_vector(tmp_path)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter += found[name]
        torch.testing.assert_close(plain(image), model(image), rtol=1e-4, atol=1e-4)
    edit(tmp_path, peft_version="0.22.0")
    with pytest.raises(ValueError, match="written by peft 0.22.0: up to 0.21.2 peft adds that change twice"):
        task_vector(tmp_path)


def test_our_own_adapters_are_read_as_they_were_trained(tmp_path: Path) -> None:
    backbone = load_checkpoints(spec("unused"), CPU)[0].backbone
    before = {name: p.detach().clone() for name, p in backbone.module.named_parameters()}
    tuning = LoraTuning(backbone, rank=3, scale=1.5, seed=0)
    with torch.no_grad():
        for factor in tuning.trained.values():
            factor += 0.05 * torch.randn(factor.shape, generator=torch.Generator().manual_seed(factor.numel()))
    tuning.write(tmp_path, torch.float32)
    tuning.settle()
    assert_equal(task_vector(tmp_path), {n: p.detach() - before[n] for n, p in backbone.module.named_parameters()})


def test_the_whole_model_of_open_clip_as_the_tower(tmp_path: Path) -> None:
    model = create("embedded/tiny-vit", {}).model
    expected = trained(model, tmp_path, *(f"visual.{BLOCK}mlp.{m}" for m in ("c_fc", "c_proj")), r=2)
    visual = {n.removeprefix("visual."): t for n, t in expected.items() if n.startswith("visual.")}
    assert_equal(task_vector(tmp_path), {name: visual[name] for name in task_vector(tmp_path)})


def hugging_face() -> nn.Module:
    """A CLIPVisionModel as wide and deep as the embedded tower."""
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=96, intermediate_size=384, num_hidden_layers=8, num_attention_heads=4, image_size=32, patch_size=8
    )
    module: nn.Module = transformers.CLIPVisionModel(config)
    return module


def as_open_clip(changes: Mapping[str, Tensor], name: str) -> Tensor:
    """The change of block 2's parameter `name`, from Hugging Face's names."""
    (prefix,) = {n.split("encoder.layers.")[0] for n in changes if "encoder.layers." in n}
    layer = f"{prefix}encoder.layers.2."
    if name == "attn.in_proj_weight":
        return torch.cat([changes[f"{layer}self_attn.{letter}_proj.weight"] for letter in "qkv"])
    theirs = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    return changes[f"{layer}{theirs[name.removesuffix('.weight')]}.weight"]


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")])
@pytest.mark.parametrize("strip", ["", "base_model.model.", "base_model.model.vision_model."])
def test_hugging_faces_names_are_rows_of_open_clips_weights(
    tmp_path: Path, targets: tuple[str, ...], strip: str
) -> None:
    changes = trained(hugging_face(), tmp_path, *targets, lora_alpha=8)
    state = load_file(tmp_path / FACTORS)
    save_file({name.removeprefix(strip): t for name, t in state.items()}, tmp_path / FACTORS)
    found = task_vector(tmp_path)
    for name in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"):
        torch.testing.assert_close(found[BLOCK + name], as_open_clip(changes, name), rtol=0, atol=1e-6)
    rank = found.factors[f"{BLOCK}attn.in_proj_weight"].a.shape[0]
    assert rank == 4 * sum(t in ("q_proj", "k_proj", "v_proj") for t in targets)
    assert not found["proj"].any() and not found["conv1.weight"].any()


def test_weights_kept_the_other_way_round_get_the_change_so(tmp_path: Path) -> None:
    expected = trained(tower(), tmp_path, "out_proj", lora_alpha=8)
    edit(tmp_path, fan_in_fan_out=True)
    name = f"{BLOCK}attn.out_proj.weight"
    torch.testing.assert_close(task_vector(tmp_path)[name], expected[name].T, rtol=0, atol=1e-6)


def test_the_fingerprint_is_of_the_change(tmp_path: Path) -> None:
    prints = {}
    for name, seed, alpha in (("a", 0, 8), ("same", 0, 8), ("scale", 0, 4), ("factors", 1, 8)):
        trained(tower(), tmp_path / name, "c_fc", seed=seed, lora_alpha=alpha)
        prints[name] = adapter_fingerprint(task_vector(tmp_path / name))
    trained(tower(), tmp_path / "pickle", "c_fc", lora_alpha=8)
    torch.save(load_file(tmp_path / "pickle" / FACTORS), tmp_path / "pickle" / "adapter_model.bin")
    (tmp_path / "pickle" / FACTORS).unlink()
    assert prints["a"] == prints["same"] == adapter_fingerprint(task_vector(tmp_path / "pickle"))
    assert len(set(prints.values())) == 3


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of the adapter's configuration."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter")
    trained(tower(), path, "c_fc", lora_alpha=8)
    return path


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("peft_type", "LOHA", "peft_type: must be LORA, got 'LOHA'"),
        ("bias", "all", "bias: must be none, got 'all'"),
        ("modules_to_save", ["proj"], r"modules_to_save: must be unset, got \['proj'\]; load it with peft, call merge"),
        ("use_dora", True, "use_dora: must be unset, got True"),
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights: must be one that leaves the base's weights as"),
        ("r", 0, "r: must be a positive number, got 0"),
        ("lora_alpha", None, "lora_alpha: must be a positive number, got None"),
        ("rank_pattern", {"(": 2}, "rank_pattern: must be a mapping of regular expressions to positive numbers"),
        ("r", 8, r"c_fc: must have the rank 8 of its configuration, got A of \(4, 96\) and B of \(384, 4\)"),
    ],
)
def test_a_configuration_of_more_than_plain_lora(
    tmp_path: Path, folder: Path, field: str, value: object, message: str
) -> None:
    for name in (CONFIG, FACTORS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    edit(tmp_path, **{field: value})
    with pytest.raises(ValueError, match=f"experts.mnist: {tmp_path}: .*{message}"):
        task_vector(tmp_path)


STEM = f"base_model.model.{BLOCK}mlp.c_fc"
Change = Callable[[dict[str, Tensor]], object]
FAULTS: dict[str, tuple[Change, str]] = {
    "a bias": (lambda s: s.update({f"{BLOCK}mlp.c_fc.bias": torch.ones(384)}), "c_fc.bias, which is no factor of a"),
    "a lost factor": (lambda s: s.pop(f"{STEM}.lora_B.weight"), "c_fc: must have lora_A and lora_B, got lora_A"),
    "another width": (
        lambda s: s.update({f"{STEM}.lora_A.weight": torch.ones(4, 64)}),
        r"c_fc: its factors give \(384, 64\), but its weight has \(384, 96\)",
    ),
    "diverged": (lambda s: s.update({f"{STEM}.lora_A.weight": torch.full((4, 96), torch.nan)}), "NaN or infinite"),
    "an unknown module": (
        lambda s: s.update({f"x.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}),
        "changes x: not a linear module of the image tower; was it trained on another architecture",
    ),
    "a text tower": (
        lambda s: s.update({f"text_model.encoder.layers.0.mlp.fc1.lora_{x}.weight": torch.ones(4, 4) for x in "AB"}),
        "changes text_model.encoder.layers.0.mlp.fc1: not a linear module .*; the text tower must be the base",
    ),
    "no factors": (lambda s: s.clear(), "holds no factors"),
    "an untrained adapter": (lambda s: [t.zero_() for t in s.values()], "has the weights of the base"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_factors_that_do_not_fit(tmp_path: Path, folder: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    state = load_file(folder / FACTORS)
    change(state)
    save_file(state, tmp_path / FACTORS)
    (tmp_path / CONFIG).write_bytes((folder / CONFIG).read_bytes())
    with pytest.raises(ValueError, match=f"experts.mnist: {tmp_path}: .*{message}"):
        task_vector(tmp_path)


def test_a_text_tower_in_a_whole_models_names_is_none_of_the_image_towers(tmp_path: Path) -> None:
    trained(create("embedded/tiny-vit", {}).model, tmp_path, "c_fc")
    with pytest.raises(ValueError, match=r"changes transformer\.resblocks\.0\.mlp\.c_fc, .* not a linear module"):
        task_vector(tmp_path)


def test_a_convolution_is_not_supported(tmp_path: Path) -> None:
    trained(tower(), tmp_path, "conv1")
    with pytest.raises(ValueError, match="conv1: LoRA of a convolution is not supported; load it with peft"):
        task_vector(tmp_path)


def test_where_a_whole_model_is_needed_an_adapter_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="a LoRA adapter, not a whole model: `experts` of a spec take it as it is"):
        read_checkpoint(str(folder))
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(ValueError, match="has adapter_config.json, but none of adapter_model.safetensors"):
        locate(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert locate(str(tmp_path)).adapter_config is None
