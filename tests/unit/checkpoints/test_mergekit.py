"""Proves that `lines merge --recipe` gives what mergekit 0.1.5 wrote, and that errors name the field and its line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from merge_command import app
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_language import write_adapter, write_tiny_llama
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from pipeline.checkpoints.mergekit.merge import merge_recipe
from pipeline.checkpoints.mergekit.schedule import read_schedule
from pipeline.checkpoints.mergekit.steps import percent

MERGEKIT = Path(__file__).parents[2] / "data" / "mergekit"
RECIPES = sorted(path.stem for path in MERGEKIT.glob("*.yml"))


def run(recipe: Path, output: str, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [f"--recipe={recipe}", f"--output={output}", *options])
    return result.exit_code, " ".join(result.output.split())


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_equals_mergekit(name: str, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    merge_recipe(read_schedule(MERGEKIT / f"{name}.yml"), output)
    found, compared = load_file(output), 0
    for key, expected in load_file(MERGEKIT / "results.safetensors").items():
        recipe, _, tensor = key.partition("/")
        if recipe == name:
            compared += 1
            assert found[tensor].dtype == expected.dtype
            assert torch.allclose(found[tensor], expected, rtol=1e-5, atol=2e-7), tensor
    assert compared == 7


def test_a_list_of_two_weights_is_lines(tmp_path: Path) -> None:
    models = "".join(f"- {{model: {MERGEKIT}/expert{i}}}\n" for i in range(3))
    text = f"merge_method: task_arithmetic\nbase_model: {MERGEKIT}/base\nmodels:\n{models}"
    recipe = written(tmp_path, f"{text}parameters: {{weight: [0.2, 0.7]}}\n")
    assert run(recipe, f"{tmp_path}/recipe.safetensors")[0] == 0
    experts = [f"--expert={MERGEKIT}/expert{i}" for i in range(3)]
    lines = [f"--base={MERGEKIT}/base", *experts, "--method=sum", "--alpha=0.2", "--beta=0.5"]
    assert CliRunner().invoke(app, [*lines, f"--output={tmp_path}/lines.safetensors"]).exit_code == 0
    ours, theirs = (load_file(tmp_path / f"{name}.safetensors") for name in ("lines", "recipe"))
    assert all(torch.allclose(ours[name], tensor, atol=2e-7) for name, tensor in theirs.items())


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_methods_that_draw_keep_the_share_and_the_norm(method: str, tmp_path: Path) -> None:
    """Draws are our own, so expectations are compared: the share of entries that stay, and the L1 norm."""
    text = f"merge_method: {method}\nbase_model: {MERGEKIT}/base\nmodels: [{{model: {MERGEKIT}/expert0}}]\n"
    recipe = written(tmp_path, f"{text}parameters: {{weight: 2, normalize: false, density: [0.3, 0.6]}}\n")
    assert run(recipe, f"{tmp_path}/out.safetensors")[0] == 0
    base, expert = (load_file(MERGEKIT / name / "model.safetensors") for name in ("base", "expert0"))
    found = load_file(tmp_path / "out.safetensors")
    for layer, share in ((0, 0.3), (1, 0.4), (3, 0.6)):
        name = f"model.layers.{layer}.mlp.gate_proj.weight"
        change, delta = found[name] - base[name], expert[name] - base[name]
        assert float((change != 0).float().mean()) == pytest.approx(share, abs=0.05)
        assert float(change.abs().sum()) == pytest.approx(2 * float(delta.abs().sum()), rel=1e-4)


def test_the_folder_loads_in_the_type_of_the_recipe(tmp_path: Path) -> None:
    status, output = run(MERGEKIT / "slerp_layers.yml", f"{tmp_path}/merged/")
    assert status == 0 and "slerp of expert0, expert1" in output and "4 layers" in output, output
    assert "merged: 39 tensors, 40,224 parameters" in output
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert loaded.dtype == torch.bfloat16
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert "layer_range: [0, 4]" in metadata["lines_sweep.mergekit"]
    assert len(json.loads(metadata["lines_sweep.models"])) == 2
    assert metadata["lines_sweep.mergekit"].strip() in (tmp_path / "merged" / "README.md").read_text()


def test_paths_of_this_machine_are_not_written(tmp_path: Path) -> None:
    recipe = written(tmp_path, f"merge_method: karcher\nmodels: [{{model: {MERGEKIT}/expert0}}, "
                               f"{{model: {MERGEKIT}/expert1}}]\n")  # fmt: skip
    assert run(recipe, f"{tmp_path}/merged/")[0] == 0
    assert str(MERGEKIT) not in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.parametrize("size", [1, 7, 1000, 3 * 2**20])
def test_shares_of_entries_are_rounded_as_in_mergekit(size: int) -> None:
    for density in (i / 1000 for i in range(1, 1000)):
        kept = int(density * size)
        assert int(percent(kept, size) / 100 * size) == kept and percent(kept, size) <= 100


TWO = "models:\n- model: expert0\n- model: expert1\n"


def head(method: str) -> str:
    return f"merge_method: {method}\nbase_model: base\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_method: ram\nmodels: [{model: base}]", "line 1: merge_method: 'ram' of mergekit is not available here"),
        ("merge_method: liner_\nmodels: [{model: base}]", "line 1: merge_method: unknown name 'liner_'; did you mean"),
        ("merge_method: ties\nmodels:\n- model: base\n  weights: 1", "line 4: models.0.weights: unknown key"),
        (
            f"{head('ties')}{TWO}parameters:\n  weights: 1",
            "line 7: parameters.weights: unknown parameter of ties; did you mean 'weight'",
        ),
        (f"{head('ties')}{TWO}", "line 4: models.0.parameters.weight: is required by ties, and nothing gives it"),
        (
            f"{head('ties')}models:\n- model: expert0\n  parameters:\n    weight: 1\n    lambda: 2",
            "line 7: models.0.parameters.lambda: ties takes it for all models: move it to parameters at the end",
        ),
        (f"{head('ties')}{TWO}parameters:\n  weight: [1, 'x']", "line 7: parameters.weight.1: must be a number"),
        (f"{head('ties')}{TWO}parameters:\n  weight: '1'", "must be a number, got '1': remove its quotes"),
        (f"{head('ties')}{TWO}parameters:\n  weight: []", "must have at least one value, got []"),
        (
            f"{head('ties')}{TWO}parameters:\n  weight: [{{filters: mlp, value: 1}}]",
            "line 7: parameters.weight.0: must be a number, a list of numbers, or a list of {filter: TEXT",
        ),
        (f"{head('ties')}{TWO}parameters:\n  normalize: 1", "parameters.normalize: must be true or false, got 1"),
        (f"{head('ties')}{TWO}parameters:\n  weight: 1\n  density: -0.1", "density: must be in [0, inf), got -0.1"),
        (f"{head('della')}{TWO}parameters: {{weight: 1, density: 0.9}}", "lower epsilon, or set density to 1"),
        (f"{head('slerp')}{TWO}parameters: {{t: 0.5}}", "models: slerp takes 1 model besides the base_model, got 2"),
        ("merge_method: ties\nmodels: [{model: expert0}]", "base_model: is required by ties"),
        (f"{head('model_stock')}{TWO}chat_template: auto", "line 6: chat_template: is not available here"),
        (f"{head('model_stock')}{TWO}modules: {{}}", "modules: is not available here: write the models or slices"),
        (f"{head('multislerp')}{TWO}parameters: {{eps: 1e-6}}", "parameters.eps: is always 1e-08 here"),
        (f"{head('model_stock')}{TWO}dtype: int8", "line 6: dtype: must be 'float32', 'float16' or 'bfloat16'"),
        (f"{head('model_stock')}{TWO}tokenizer_source: union", "base has no tokenizer.json to compare"),
        (f"{head('model_stock')}models: [{{model: expert0}}, {{model: expert0}}]", "models.1.model: is there twice"),
        (
            f"{head('model_stock')}models: [{{model: expert0}}, {{model: base+lora}}]",
            "models.1.model: no such folder, and no OWNER/REPO of the hub, got 'lora'",
        ),
        (
            f"{head('model_stock')}models: [{{model: expert0}}, {{model: exprt1}}]",
            "models.1.model: no such folder, and no OWNER/REPO of the hub, got 'exprt1'",
        ),
        (f"{head('model_stock')}{TWO}slices: []", "slices: must have at least 1 item"),
        (
            f"{head('model_stock')}models: [{{model: expert0}}, {{model: ./expert1_}}]",
            "models.1.model: no such folder, and no OWNER/REPO of the hub, got './expert1_'",
        ),
        ("merge_method: linear", "exactly one of models and slices must be given"),
        ("- 1", "must be a recipe of mergekit: a mapping with merge_method and models or slices"),
        ("a: [", "line 1, column 5: not valid YAML"),
    ],
)
def test_bad_recipes_are_refused_with_field_and_line(text: str, message: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("base", "expert0", "expert1"):
        (models / name).symlink_to(MERGEKIT / name)
    status, output = run(written(models, text), f"{tmp_path}/out.safetensors")
    assert status == 2 and message in output, output
    assert not (tmp_path / "out.safetensors").exists()


def sliced(*slices_of: tuple[str, int, int]) -> str:
    slices = ""
    for model, first, end in slices_of:
        sources = (f"  - {{model: {name}, layer_range: [{first}, {end}]}}\n" for name in ("base", model))
        slices += f"- sources:\n{''.join(sources)}"
    return f"merge_method: task_arithmetic\nbase_model: base\nparameters: {{weight: 1}}\nslices:\n{slices}"


WHOLE = sliced(("expert0", 0, 4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            sliced(("expert0", 0, 3), ("expert1", 2, 4)),
            "line 9: slices.1.sources.0.layer_range: must begin with layer 3, got [2, 4]: a merge keeps every layer",
        ),
        (
            sliced(("expert0", 0, 3)),
            "line 6: slices.0.sources.0.layer_range: must end with layer 4, as the models have 4",
        ),
        (
            WHOLE.replace("model: expert0, layer_range: [0, 4]", "model: expert0, layer_range: [1, 5]"),
            "slices.0.sources.1.layer_range: must be that of the slice's first model, [0, 4], got [1, 5]",
        ),
        (
            WHOLE.replace("model: base, layer_range", "model: expert1, layer_range"),
            "slices.0.sources: must hold the base_model 'base' too",
        ),
        (WHOLE.replace("expert0, layer_range: [0, 4]", "expert0"), "layer_range: is required"),
    ],
)
def test_restacked_layers_are_refused(text: str, message: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(MERGEKIT, models, ignore=shutil.ignore_patterns("*.yml", "results*"))
    status, output = run(written(models, text), f"{tmp_path}/out.safetensors")
    assert status == 2 and message in output, output


def test_a_list_over_two_stacks_of_layers_is_refused(tmp_path: Path) -> None:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.gate_proj", "mlp.down_proj", "input_layernorm")
    names = [f"{tower}.layers.{i}.{part}.weight" for tower in ("model", "vision_tower.model") for i in (0, 1)
             for part in parts]  # fmt: skip
    for seed, model in enumerate(("a", "b")):
        (tmp_path / model).mkdir()
        save_file({n: torch.full((2, 2), seed + 1.0) for n in names}, tmp_path / model / "model.safetensors")
    text = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters:\n  weight: [0.5, 1]\n"
    status, output = run(written(tmp_path, text), f"{tmp_path}/o.safetensors", r"--blocks=model\.layers\.(\d+)\.")
    assert status == 2 and "line 4: parameters.weight: the model has other layers besides these 2" in output, output
    text = text.replace("[0.5, 1]", "0.5")
    assert run(written(tmp_path, text), f"{tmp_path}/o.safetensors")[0] == 0
    assert set(load_file(tmp_path / "o.safetensors")[names[0]].flatten().tolist()) == {1.5}


def test_vocabularies_must_be_equal_if_the_recipe_chooses_one(tmp_path: Path) -> None:
    for name in ("expert0", "expert1"):
        shutil.copytree(MERGEKIT / name, tmp_path / name)
        vocabulary = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "</s>"}]}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(vocabulary))
    text = "merge_method: karcher\nmodels: [{model: expert0}, {model: expert1}]\ntokenizer_source: union\n"
    assert run(written(tmp_path, text), f"{tmp_path}/o.safetensors")[0] == 0
    swapped = {"model": {"vocab": {"b": 0, "a": 1}}, "added_tokens": [{"id": 2, "content": "</s>"}]}
    (tmp_path / "expert1" / "tokenizer.json").write_text(json.dumps(swapped))
    status, output = run(written(tmp_path, text), f"{tmp_path}/p.safetensors")
    assert status == 2 and "line 3: tokenizer_source: expert1 has other tokens than expert0 (3 and 3)" in output, output


def test_adapters_are_added_to_their_model(tmp_path: Path) -> None:
    base = write_tiny_llama(tmp_path / "base", layers=2)
    adapter = write_adapter(tmp_path / "policy", base, seed=1)
    models = "base_model: base\nmodels: [{model: base+policy}]\nparameters: {weight: [0.5, 1]}\n"
    status, output = run(written(tmp_path, f"merge_method: task_arithmetic\n{models}"), f"{tmp_path}/o.safetensors")
    assert status == 0, output
    found, start = load_file(tmp_path / "o.safetensors"), load_file(base / "model.safetensors")
    factors = load_file(adapter / "adapter_model.safetensors")
    for layer, weight in ((0, 0.5), (1, 1.0)):
        name = f"model.layers.{layer}.mlp.up_proj"
        a, b = (factors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        expected = start[f"{name}.weight"] + weight * 2 * (b @ a)  # alpha is twice the rank
        assert torch.allclose(found[f"{name}.weight"], expected, atol=1e-6)
    assert torch.equal(found["model.norm.weight"], start["model.norm.weight"])
    write_adapter(tmp_path / "policy3", write_tiny_llama(tmp_path / "three", layers=3), seed=1)
    text = f"merge_method: task_arithmetic\n{models}".replace("policy", "policy3")
    status, output = run(written(tmp_path, text), f"{tmp_path}/p.safetensors")
    assert status == 2 and "policy3: changes model.layers.2.mlp.down_proj.weight" in output, output


def test_types_may_be_written_as_torch_does(tmp_path: Path) -> None:
    text = f"merge_method: linear\nmodels: [{{model: {MERGEKIT}/base}}]\nparameters: {{weight: 1}}\n"
    assert run(written(tmp_path, f"{text}dtype: torch.float16\n"), f"{tmp_path}/o.safetensors")[0] == 0
    assert load_file(tmp_path / "o.safetensors")["model.norm.weight"].dtype == torch.float16


def test_options_that_the_recipe_decides_are_refused(tmp_path: Path) -> None:
    status, output = run(MERGEKIT / "ties.yml", f"{tmp_path}/o.safetensors", "--beta=0.3", "--method=sum")
    assert status == 2 and "--beta, --method: --recipe decides this" in output, output
    result = CliRunner().invoke(app, [f"--output={tmp_path}/o.safetensors", "--base=x"])
    assert result.exit_code == 2 and "--expert: is required, unless --recipe gives the models" in result.output
    notes = run(MERGEKIT / "precedence.yml", f"{tmp_path}/o.safetensors")[1]
    assert "parameters.int8_mask: has no effect on linear" in notes
