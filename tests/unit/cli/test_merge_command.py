"""Proves that `lines merge` writes the oracle's files from its checkpoints, and prints and records what it did."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from merge_command import app
from merge_oracle import BASE, EXPERTS, ORACLE, run
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pipeline.checkpoints.checkpoint import fingerprint, read_checkpoint
from pipeline.recipe import Recipe


@pytest.mark.parametrize(
    ("file", "method", "alpha", "beta", "experts"),
    [
        ("lines_sum_a0.25_b0.3", "sum", 0.25, 0.3, EXPERTS),
        ("lines_sum_a0.0_b1.0", "sum", 0.0, 1.0, EXPERTS),
        ("lines_sum_a1.0_b-0.5", "sum", 1.0, -0.5, EXPERTS),
        ("lines_single0_gamma0.0", "single", 0.0, 1.0, EXPERTS[:1]),
        ("lines_single0_gamma0.3", "single", 0.3, 0.7, EXPERTS[:1]),
    ],
)
@pytest.mark.parametrize("blocks", [(), ("--blocks", r"visual\.transformer\.resblocks\.(\d+)\.")])
def test_writes_the_oracle_bit_for_bit(
    tmp_path: Path, file: str, method: str, alpha: float, beta: float, experts: list[str], blocks: tuple[str, ...]
) -> None:
    out = tmp_path / "out.safetensors"
    run(out, f"--method={method}", f"--alpha={alpha}", f"--beta={beta}", *blocks, experts=experts)
    expected, merged = load_file(ORACLE / f"{file}.safetensors"), load_file(out)
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


def test_sum_file_is_the_change_of_a_constant_one(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run(out, "--scaling=constant", "--alpha=1")
    base, total, merged = load_file(BASE), load_file(ORACLE / "sum.safetensors"), load_file(out)
    assert all(torch.equal(merged[name], base[name] + total[name]) for name in base)


def test_lambda_outside_the_blocks_can_be_fixed(tmp_path: Path) -> None:
    """The sum of task vectors is `sum.safetensors` of the oracle; blocks get 0.25 to 0.55, the rest 0.8."""
    out = tmp_path / "out.safetensors"
    run(out, "--method=sum", "--alpha=0.25", "--beta=0.3", "--param", "lambda_outside=0.8")
    base, total, merged = load_file(BASE), load_file(ORACLE / "sum.safetensors"), load_file(out)
    for name in base:
        block = re.match(r"model\.visual\.transformer\.resblocks\.(\d)\.", name)
        expected = 0.25 + 0.3 * int(block[1]) / 3 if block else 0.8
        torch.testing.assert_close(merged[name], base[name] + expected * total[name], rtol=1e-6, atol=1e-7)


def test_prints_alpha_and_lambdas_and_records_the_recipe(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    output = run(out, "--beta=0.6")
    assert "open_clip ViT, image tower: 4 blocks" in output
    assert "alpha 0.3333333 (auto: equation 2), beta 0.6" in output
    assert [line.split("│")[3].strip() for line in output.splitlines() if line.startswith("│")] == [
        "0.333333", "0.333333", "0.533333", "0.733333", "0.933333",
    ]  # fmt: skip
    assert "norm of the change" in output
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["lines_sweep.recipe"]) == Recipe.make("sum", "linear", "auto", 0.6).to_json()
    assert metadata["lines_sweep.alpha"] == "0.3333333"
    assert metadata["lines_sweep.base"] == fingerprint(load_file(BASE))
    assert json.loads(metadata["lines_sweep.experts"]) == [fingerprint(load_file(e)) for e in EXPERTS]
    assert str(tmp_path) not in str(metadata) and str(ORACLE) not in str(metadata)


def test_factors_of_components_multiply_lambda(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    options = ["--component=attention=0.5", "--component=ends=0", "--pattern=ends=proj$|conv1"]
    output = run(out, "--alpha=0.25", "--beta=0.3", *options)
    assert "attention: lambda x 0.5 in 16 tensors" in output and "ends: lambda x 0 in 2 tensors" in output
    base, total, merged = load_file(BASE), load_file(ORACLE / "sum.safetensors"), load_file(out)
    for name in base:
        block = re.match(r"model\.visual\.transformer\.resblocks\.(\d)\.(attn\.)?", name)
        expected = (0.25 + 0.3 * int(block[1]) / 3 if block else 0.25) * (0.5 if block and block[2] else 1)
        expected *= not re.search(r"visual\.(proj|conv1)", name)
        torch.testing.assert_close(merged[name], base[name] + expected * total[name], rtol=1e-6, atol=1e-7)


def test_weights_parameters_and_controls(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    weights = ["--method=weighted", "--weight=0.5", "--weight=0", "--weight=0.25"]
    output = run(out, *weights, "--scaling=reversed:power", "--param=p=2", "--alpha=0", "--beta=1")
    assert [line.split("│")[3].strip() for line in output.splitlines() if line.startswith("│")] == [
        "0", "1", "0.444444", "0.111111", "0",
    ]  # fmt: skip


def test_steps_follow_in_the_order_given(tmp_path: Path) -> None:
    """Equation 2 sees what they make of the merge, whose norm it scales to."""
    out = tmp_path / "out.safetensors"
    assert "(auto: equation 2)" in run(out, "--then=norm_match:by=parameter", "--then=norm_match")
    with safe_open(out, "pt") as file:
        recipe = json.loads(file.metadata()["lines_sweep.recipe"])
    assert recipe[6] == [["norm_match", {"by": "parameter"}], ["norm_match", {}]]


@pytest.mark.parametrize(
    ("options", "alpha"),
    [
        (["--method=average"], "1"),
        (["--method=model_stock"], "1"),
        (["--method=slerp", "--weight=1", "--weight=0", "--weight=1"], "1"),
        (["--method=weighted", "--weight=0.5", "--weight=0.25", "--weight=0.25"], "1"),
        (["--method=sum"], "auto"),
        (["--method=ties"], "auto"),
        (["--method=model_stock", "--alpha=auto"], "auto"),
    ],
)
def test_a_merge_that_is_a_model_is_not_rescaled_by_default(tmp_path: Path, options: list[str], alpha: str) -> None:
    out = tmp_path / "out.safetensors"
    output = run(out, *options)
    assert ("(auto: equation 2)" in output) == (alpha == "auto")
    assert ("alpha 1, beta 0" in output) == (alpha == "1")
    run(tmp_path / "same.safetensors", *options, f"--alpha={alpha}")
    merged, same = load_file(out), load_file(tmp_path / "same.safetensors")
    assert all(torch.equal(merged[name], same[name]) for name in merged)


def test_one_constant_is_one_row_and_that_of_equal_norm_is_no_alpha(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    output = run(out, "--scaling=equal_norm:linear", "--beta=0.5")
    (row,) = [line.split("│") for line in output.splitlines() if line.startswith("│")]
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert row[1].strip() == "everywhere" and "alpha" not in output and "lines_sweep.alpha" not in metadata
    constant = float(metadata["lines_sweep.constant"])
    assert f"constant {constant:.7g} (equal norm)" in output and float(row[3]) == pytest.approx(constant, rel=1e-5)
    mean = run(out, "--scaling=uniform:linear", "--beta=0.5", "--component=mlp=0.5", "--overwrite")
    assert re.search(r"constant 0\.\d+ \(equal mean\)", mean) and "lambda x" not in mean


def test_keeps_types_and_copies_integers(tmp_path: Path) -> None:
    base = {
        "h.0.w": torch.ones(2, dtype=torch.bfloat16),
        "h.1.w": torch.ones(2).half(),
        "position_ids": torch.arange(3),
    }
    expert = {
        "h.0.w": torch.tensor([2.0, 3.0]),
        "h.1.w": torch.tensor([1.5, 1.0]),
        "position_ids": torch.zeros(3).long(),
    }
    save_file(base, tmp_path / "base.safetensors")
    torch.save({"state_dict": expert}, tmp_path / "expert.pt")
    out = tmp_path / "out.safetensors"
    files = {"base": str(tmp_path / "base.safetensors"), "experts": [str(tmp_path / "expert.pt")]}
    run(out, "--method=single", "--alpha=0.5", "--beta=0.5", **files)
    merged = load_file(out)
    assert {name: t.dtype for name, t in merged.items()} == {name: t.dtype for name, t in base.items()}
    assert {name: t.tolist() for name, t in merged.items()} == {
        "h.0.w": [1.5, 2.0], "h.1.w": [1.5, 1.0], "position_ids": [0, 1, 2],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("ties_k20_mean", ["--method=ties", "--param=keep=20", "--param=aggregate=mean"]),
        ("ties_k20_sum", ["--method=ties", "--param=aggregate=sum"]),
        ("consensus_l0.4_k1", ["--method=consensus", "--param=tall_lambda=0.4", "--param=threshold=1"]),
        ("consensus_l0.4_k2", ["--method=consensus", "--param=tall_lambda=0.4,0.4,0.4", "--param=threshold=2"]),
    ],
)
def test_other_methods_add_the_oracles_vector(tmp_path: Path, file: str, options: list[str]) -> None:
    out = tmp_path / "out.safetensors"
    run(out, *options, "--scaling=constant", "--alpha=1")
    base, combined, merged = load_file(BASE), load_file(ORACLE / f"{file}.safetensors"), load_file(out)
    assert all(torch.equal(merged[name], base[name] + combined[name]) for name in base)
    alpha = json.loads((ORACLE / "oracle.json").read_text())["alpha_heuristic"][file]
    found = run(out, *options, "--beta=0.5", "--overwrite").rpartition("\nalpha ")[2].split()[0]
    assert float(found) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        ["magnitude", "--param=keep=30"],
        ["dare", "--param=drop=0.5", "--param=seed=25599489"],
        ["breadcrumbs"],
        ["tall_mask", "--param=expert=2"],
        ["model_stock"],
        ["slerp", "--param=t=0.25", "--weight=1", "--weight=0", "--weight=1"],
        ["tsvm"],
        ["iso_c"],
    ],
)
def test_every_method_is_reached(tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "out.safetensors"
    assert "norm of the change" in run(out, "--method", *options, "--scaling=constant", "--alpha=1")
    base, merged = load_file(BASE), load_file(out)
    assert not all(torch.equal(merged[n], base[n]) for n in base if base[n].ndim == 2)
    with safe_open(out, "pt") as file:
        recipe = json.loads(file.metadata()["lines_sweep.recipe"])
    assert recipe[0] == options[0] and recipe[5] == {k: float(v) for k, _, v in parameters(options)}


def parameters(options: list[str]) -> list[tuple[str, str, str]]:
    return [option.removeprefix("--param=").partition("=") for option in options if option.startswith("--param=")]


def test_experts_without_a_text_tower_are_merged_and_the_base_keeps_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    sources = ["--base=embedded/base", "--expert=embedded/emoji", "--expert=embedded/icons"]
    result = CliRunner().invoke(app, [*sources, "--alpha=auto", "--beta=0.4", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "in no expert, so they stay the base's: " in result.output
    base, merged = read_checkpoint("embedded/base").state, load_file(out)
    assert merged.keys() == base.keys()
    assert torch.equal(merged["token_embedding.weight"], base["token_embedding.weight"])
    assert not torch.equal(merged["visual.proj"], base["visual.proj"])


def test_a_command_that_has_torch_ends_after_its_threads_exit_handlers_and_open_files(tmp_path: Path) -> None:
    code = """
import atexit, threading, time
from pipeline.cli.main import main
class Late:
    def __del__(self): print("torn down")
late, kept = Late(), open("kept", "w")
kept.write("whole")
atexit.register(print, "last")
threading.Thread(target=lambda: (time.sleep(0.1), print("joined"))).start()
main()"""
    words = [sys.executable, "-c", code, "merge", "-o", "a.safetensors"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    ended = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ended.returncode == 2 and ended.stderr.startswith("error: --base: is required")
    assert ended.stdout == "joined\nlast\n" and (tmp_path / "kept").read_text() == "whole"
