"""Proves that `lines merge` names what is wrong with its options, experts or output, and then writes nothing."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from merge_oracle import EXPERTS, arguments, refuses, run
from safetensors.torch import load_file, save_file

from pipeline.cli.merge_options import parsed_params


def test_missing_options_are_errors_before_anything_is_read(tmp_path: Path) -> None:
    out, nowhere = tmp_path / "out.safetensors", ["no.pt"] * 3
    refuses(out, "--method weighted: needs --weight, one for each expert", "--method=weighted", experts=nowhere)
    refuses(out, "method slerp: takes two experts, got 3", "--method=slerp", experts=nowhere)
    refuses(out, "one file for each of 3 experts", "--method=fisher", experts=nowhere)
    refuses(out, "the result would be the base itself", "--method=zero", experts=nowhere)
    refuses(out, "the result would be the base itself", "--scaling=constant", "--alpha=0", experts=nowhere)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method=ties", "--param=aggregate=median"], "aggregate: must be one of mean, sum, got 'median'"),
        (["--method=ties", "--param=kep=20"], "unknown name 'kep'; did you mean 'keep'"),
        (["--method=consensus", "--param=threshold=1.5"], "threshold: must be a whole number, got 1.5"),
        (["--method=consensus", "--param=tall_lambda=0.4,x"], "with commas between them, got '0.4,x'"),
        (["--method=summ"], "--method: unknown name 'summ'; did you mean 'sum'"),
        (["--scaling=liner"], "scaling: unknown name 'liner'; did you mean 'linear'"),
        (["--alpha=auot"], "--alpha: must be a number or one of auto, auto_l2, got 'auot'; did you mean 'auto'"),
        (["--param=p=2"], "--param of sum and linear: unknown name 'p'"),
        (["--param=p"], "--param: must be NAME=VALUE, got 'p'"),
        (["--then=norm_mach"], "--then: unknown name 'norm_mach'; did you mean 'norm_match'?"),
        (["--then=norm_match:by=layer"], "--then norm_match: by: must be one of parameter, block, whole, got"),
        (["--then=svc:floor=0"], "--then svc: floor: must be in (0, inf), got 0"),
        (["--then=norm_match:by=block,by=whole"], "--then norm_match by: may be given once"),
        (["--then=norm_match:per=block"], "--then norm_match: unknown name 'per'"),
        (["--then=norm_match:block"], "--then norm_match: must be NAME=VALUE, got 'block'"),
        (["--scaling=power", "--param=p=-1"], "p: must be in (0, inf), got -1"),
        (["--method=weighted", "--weight=1"], "weights: must be one for each of 3 experts, got 1"),
        (["--component=mlp"], "--component: must be NAME=FACTOR, got 'mlp'"),
        (["--pattern=norms="], "--pattern: must be NAME=REGEX, got 'norms='"),
        (["--component=mlp=x"], "--component mlp: must be a number, got 'x'"),
        (["--component=mpl=0.5"], "components: unknown component 'mpl'; did you mean 'mlp'"),
        (["--component=ssm=0.5"], "components.ssm: matches none of the"),
        (["--component=x=2", "--pattern=x=nowhere"], "components.x: matches none of the"),
        (["--blocks=nothing(\\d)"], "matches none of"),
        (["--alpha=1e39"], "NaN or infinite after the merge"),
        (["--alpha=0", "--beta=1e-30"], "(method sum, scaling linear, alpha 0, beta 1e-30) does nothing"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    refuses(tmp_path / "out.safetensors", message, *options)


def test_experts_of_another_architecture_are_refused(tmp_path: Path) -> None:
    other = load_file(EXPERTS[0])
    del other["model.visual.proj"]
    save_file(other, tmp_path / "other.safetensors")
    message = "other.safetensors: does not match"
    refuses(tmp_path / "out.safetensors", message, experts=[EXPERTS[1], str(tmp_path / "other.safetensors")])


def test_output_is_never_replaced_by_accident(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run(out, "--beta=0.5")
    first = out.read_bytes()
    refuses(out, "exists; choose another name, or give --overwrite")
    refuses(tmp_path / "out.pt", "--output: must end in .safetensors")
    refuses(tmp_path / "no" / "out.safetensors", "--output: there is no folder")
    run(out, "--beta=0.6", "--overwrite")
    assert out.read_bytes() != first


@pytest.mark.slow
def test_a_device_without_space_leaves_nothing_behind(tmp_path: Path) -> None:
    """In another process, the system refuses to write beyond a limit, like a full device."""
    out = tmp_path / "out.safetensors"
    code = "import typer; from pipeline.cli.merge import merge; typer.run(merge)"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments(out)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert f"{out}: cannot write 23,236 bytes" in result.stderr
    assert "File too large" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_parameter_names_its_option() -> None:
    with pytest.raises(ValueError, match=r"^--param keep: must be a number, got 'abc'"):
        parsed_params("ties", "constant", ["keep=abc"])
