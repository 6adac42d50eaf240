"""Proves that `lines import` writes a spec whose arm gives what mergekit wrote, or says what a spec cannot hold."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_language import row, write_tiny_llama
from typer.testing import CliRunner

from pipeline.checkpoints.merge_files import merge_files
from pipeline.checkpoints.mergekit.arms import arm_of
from pipeline.checkpoints.mergekit.schedule import read_schedule
from pipeline.checkpoints.prepared_merge import MergeSources
from pipeline.cli.main import app
from pipeline.plan.plan import make_plan
from pipeline.spec.load import load_spec

MERGEKIT = Path(__file__).parents[2] / "data" / "mergekit"
#: Recipe -> what a spec cannot hold.
REFUSED = {
    "breadcrumbs": "line 4: models.0.parameters.density: differs from model to model",
    "breadcrumbs_dense": "line 4: models.0.parameters.density: differs from model to model",
    "karcher_base": "line 2: base_model: is one of the models that are averaged",
    "linear_unnormalised": "line 3: models.0.parameters.weight: must add up to 1 at every layer",
    "nuslerp_rows": "line 5: models.0.parameters.weight: differs from layer to layer, and not in the same way",
    "precedence": "line 6: models.0.parameters.weight: differs by the names of tensors",
    "slerp_layers": "line 8: parameters.t: differs by the names of tensors",
    "task_arithmetic_normalised": "line 4: models.0.parameters.weight: differs from layer to layer, and not",
    "ties_layers": "line 8: slices.0.sources.1.parameters.density: differs by the names of tensors",
    "two_slices": "line 3: slices: differs from layer to layer",
}
NO_BASE = {"karcher", "linear", "multislerp_weights", "nuslerp_columns", "nuslerp_weights", "slerp"}
RECIPES = sorted(path.stem for path in MERGEKIT.glob("*.yml"))


def import_recipe(recipe: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["import", str(recipe), *options])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in REFUSED])
def test_the_arm_gives_what_mergekit_wrote(name: str, tmp_path: Path) -> None:
    spec_file, options = tmp_path / "spec.yaml", [f"--base={MERGEKIT}/base"] if name in NO_BASE else []
    status, output = import_recipe(
        MERGEKIT / f"{name}.yml", f"--output={spec_file}", "--task=arc=lm_eval/arc_easy", *options
    )
    assert status == 0, output
    spec = load_spec(spec_file)
    assert spec.backbone.family == "causal" and spec.base == str(MERGEKIT / "base")
    (group,) = (g for g in make_plan(spec).searched if not g.control_of)
    merge_files(MergeSources(spec.base, list(spec.experts.values())), group.recipe({}), tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    expected = load_file(MERGEKIT / "results.safetensors")
    names = [key for key in expected if key.startswith(f"{name}/")]
    assert len(names) == 7
    for key in names:
        assert torch.allclose(found[key.partition("/")[2]], expected[key], rtol=1e-5, atol=4e-7), key


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_spec_cannot_hold_is_an_error(name: str) -> None:
    status, output = import_recipe(MERGEKIT / f"{name}.yml")
    assert status == 2 and REFUSED[name] in output, output
    assert output.endswith("a spec cannot hold this, but lines merge --recipe merges by it")


def test_a_recipe_without_a_base_asks_for_it() -> None:
    status, output = import_recipe(MERGEKIT / "slerp.yml")
    assert status == 2 and "--base: is required, as slerp in this recipe has no base" in output, output
    status, output = import_recipe(MERGEKIT / "ties.yml", "--base=x")
    assert status == 2 and "--base: the recipe has one, base; leave --base out" in output, output
    status, output = import_recipe(MERGEKIT / "ties.yml", "--task=arc")
    assert status == 2 and "--task: must be NAME=SOURCE, such as arc=lm_eval/arc_easy, got 'arc'" in output, output


@pytest.mark.parametrize(
    ("parameters", "method", "scaling"),
    [
        ("weight: [0.2, 0.7]", "sum", {"function": "linear", "alpha": 0.2, "beta": 0.5}),
        ("weight: 0.5, lambda: [0.4, 0.8, 1.2]", "sum", {"function": "linear", "alpha": 0.2, "beta": 0.4}),
        ("weight: [0.1, 0.5, 0.2]", "sum",
         {"function": "piecewise", "alpha": 0.1, "beta": 1, "params": {"knots": [0.0, 0.4, 0.1]}}),
        ("weight: [1, 3], normalize: true", "average", {"alpha": 1.0}),
        ("weight: 0.3, normalize: true, lambda: [0, 1]", "average", {"function": "linear", "alpha": 0.0, "beta": 1.0}),
    ],
)  # fmt: skip
def test_lists_become_functions_of_depth(parameters: str, method: str, scaling: dict, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yml"
    models = "models: [{model: a}, {model: b}]"
    recipe.write_text(f"merge_method: task_arithmetic\nbase_model: base\n{models}\nparameters: {{{parameters}}}\n")
    arm = arm_of(read_schedule(recipe))
    assert (arm.method, arm.scaling) == (method, scaling)


def test_the_example_is_lines() -> None:
    arm = arm_of(read_schedule(Path(__file__).parents[3] / "examples" / "mergekit" / "lines.yml"))
    assert (arm.method, arm.scaling) == ("sum", {"function": "linear", "alpha": 0.2, "beta": 0.6})


def test_own_lists_that_grow_alike_keep_their_ratio(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yml"
    models = "- {model: a, parameters: {weight: [0.2, 0.4]}}\n- {model: b, parameters: {weight: [0.3, 0.6]}}\n"
    recipe.write_text(f"merge_method: dare_ties\nbase_model: base\nmodels:\n{models}parameters: {{density: 0.4}}\n")
    arm = arm_of(read_schedule(recipe))
    assert arm.weights == (1.0, 1.5) and arm.profile == (0.2, 0.4)
    assert arm.params == {"drop": 0.6, "rescale": "l1", "aggregate": "sum"}


def test_the_spec_asks_for_tasks_and_validates_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate(("base", "maths", "code")):
        write_tiny_llama(tmp_path / name, layers=2, seed=seed)
    rows = tmp_path / "rows"
    rows.mkdir()
    for split in ("val", "test"):
        lines = [{"prompt": row(i)["source"][:20], "choices": ["a", "b"], "label": i % 2} for i in range(6)]
        (rows / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    recipe = tmp_path / "my recipe.yml"
    recipe.write_text(
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: maths}, {model: code}]\n"
        "parameters: {weight: [0.2, 0.6]}\nout_dtype: bfloat16\n"
    )
    monkeypatch.chdir(tmp_path)
    status, output = import_recipe(recipe, "-o", "empty.yaml")
    assert status == 0 and "name the tasks in it, then: lines validate empty.yaml" in output, output
    status, output = import_recipe(recipe, "-o", "empty.yaml")
    assert status == 2 and "--output: empty.yaml exists" in output, output
    result = CliRunner().invoke(app, ["validate", "empty.yaml"])
    assert result.exit_code == 2 and "empty.yaml: tasks: is required" in result.output, result.output
    status, output = import_recipe(recipe, "-o", "spec.yaml", "--task", "maths=rows")
    assert status == 0, output
    content = yaml.safe_load(Path("spec.yaml").read_text())
    assert content["backbone"] == {"family": "causal", "model": "base", "precision": "bfloat16"}
    assert content["tasks"] == {"maths": "rows"} and content["targets"] == {"code": "maths"}
    assert content["controls"] == ["uniform", "reversed"] and content["name"] == "my recipe"
    result = CliRunner().invoke(app, ["validate", "spec.yaml"])
    assert result.exit_code == 0 and "valid: spec.yaml" in result.output, result.output


def test_an_adapter_is_an_expert_of_its_model(tmp_path: Path) -> None:
    for name in ("base", "other", "policy"):
        (tmp_path / name).mkdir()
    recipe = tmp_path / "r.yml"
    text = "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: base+policy}]\nparameters: {weight: 1}\n"
    recipe.write_text(text)
    assert import_recipe(recipe, f"--output={tmp_path}/spec.yaml", "--task=arc=lm_eval/arc_easy")[0] == 0
    assert load_spec(tmp_path / "spec.yaml").experts == {"policy": str(tmp_path / "policy")}
    recipe.write_text(text.replace("base+policy", "other+policy"))
    status, output = import_recipe(recipe)
    assert status == 2 and "other+policy: is an adapter on" in output and "but the base is" in output, output


def test_the_commented_arm_is_an_arm(tmp_path: Path) -> None:
    output = tmp_path / "spec.yaml"
    assert import_recipe(MERGEKIT / "ties.yml", f"--output={output}")[0] == 0
    text = output.read_text()
    head, _, search = text.partition("# Remove the # to search")
    head = "".join(f"{line.removeprefix('# ')}\n" for line in head.splitlines() if not line.startswith(("# W", "# d")))
    search = "".join(f"{line.removeprefix('#')}\n" for line in search.splitlines()[1:])
    output.write_text(head.replace("Made of", "# Made of").replace("  answers: {source: data/answers}\n", "") + search)
    spec = load_spec(output)
    assert list(spec.arms) == ["ties of mergekit", "the same merge with LiNeS"]
    assert spec.controls.kinds == ("uniform", "reversed") and spec.target("expert1") == "science"
