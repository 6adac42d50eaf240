"""`lines ppo` from end to end: policies that sweeps can take as experts; killed or lost ones end with the same bits."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from small_ppo import small_ppo, weights, write_ground, write_ppo
from typer.testing import CliRunner

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lora import read_adapter
from pipeline.cli.main import app
from tasks.language.causal import build
from tasks.language.experts import adapter_base

COMMAND = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "ppo"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def undisturbed(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the small training, done in this process without interruption."""
    folder = tmp_path_factory.mktemp("trained")
    status, output = lines(write_ppo(folder, ground), "--out", folder / "out")
    assert status == 0, output
    return folder / "out"


def lines(*words: object) -> tuple[int, str]:
    """`lines ppo` in this process: return exit status, and the output on one line."""
    found = CliRunner().invoke(app, ["ppo", *map(str, words)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, " ".join(found.output.split())


def start(spec: Path, out: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, str(spec), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(process: subprocess.Popen[str], path: Path) -> None:
    """Wait for a file that the process writes."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[0]


def test_the_folder_holds_what_a_sweep_needs_and_a_report(ground: Path, undisturbed: Path) -> None:
    assert weights(undisturbed).keys() == {
        "policies/near/adapter_model.safetensors",
        "policies/vowels/adapter_model.safetensors",
        "sft/model.safetensors",
    }
    report = (undisturbed / "report.md").read_text()
    for name in ("near", "vowels"):
        result = json.loads((undisturbed / "policies" / name / "train.json").read_text())
        assert f"| {name} | ppo | {name} |" in report and f"### Completions of {name}" in report
        assert result["updates"] == 4 and result["sft"].keys() == {"reward_mean", "reward_std"}
    page = (undisturbed / "report.html").read_text()
    assert len(re.findall('type="application/json"', page)) == 2 + 2 + 3  # panels: rewards, KL, health


def test_the_sft_model_and_its_policies_are_base_and_experts(undisturbed: Path) -> None:
    """Read as by a run: a policy is a low-rank task vector on every linear layer of the blocks."""
    sft, policy = str(undisturbed / "sft"), str(undisturbed / "policies" / "near")
    backbone = build(sft, read_checkpoint(sft).state, torch.device("cpu"), torch.float32)
    backbone.check_expert(Path(policy), policy)
    assert adapter_base(Path(policy), policy) == sft
    found = read_adapter(locate(policy))
    shapes = {name: p.shape for name, p in backbone.module.named_parameters()}
    vector = found.task_vector(backbone.weight_parts(found.factors, policy), shapes)
    assert set(vector.factors) == {name for name in shapes if name.endswith("_proj.weight")}
    assert all(bool(vector[name].any()) for name in vector.factors)


def test_a_finished_command_is_left_alone_and_a_changed_spec_refused(
    ground: Path, undisturbed: Path, tmp_path: Path
) -> None:
    before = weights(undisturbed)
    status, output = lines(write_ppo(tmp_path, ground), "--out", undisturbed)
    assert status == 0 and "2 of 2 are finished: policies/vowels, policies/near" in output, output
    training = {**small_ppo(ground)["training"], "seed": 1}
    status, output = lines(write_ppo(tmp_path, ground, training=training), "--out", undisturbed)
    assert status == 2 and "trained differently: training.seed 0, not 1; choose another --out" in output, output
    assert weights(undisturbed) == before


def test_a_killed_command_resumes_to_the_same_bits(ground: Path, undisturbed: Path, tmp_path: Path) -> None:
    """SIGKILL while a policy learns; test_ppo_sft.py stops the SFT model."""
    spec, out = write_ppo(tmp_path, ground), tmp_path / "out"
    process = start(spec, out)
    until(process, out / "policies" / "vowels" / "checkpoint.safetensors")
    process.kill()
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    status, output = lines(spec, "--out", out)
    assert status == 0 and "1 of 2 resume from a checkpoint: policies/vowels" in output, output
    assert weights(out) == weights(undisturbed)


@pytest.mark.cluster
def test_two_policies_at_once_on_ray_with_a_worker_killed_are_the_same(
    ground: Path, undisturbed: Path, tmp_path: Path
) -> None:
    spec, out = write_ppo(tmp_path, ground, resources={"workers": 2}), tmp_path / "out"
    driver = start(spec, out)
    until(driver, out / "policies" / "near" / "checkpoint.safetensors")
    running = psutil.Process(driver.pid).children(recursive=True)
    killed = [p for p in running if p.name().startswith("ray::_train")]
    for process in killed:
        process.kill()
    output = driver.communicate()[0]
    assert driver.returncode == 0 and killed, output
    assert weights(out) == weights(undisturbed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nowhere"}, "nowhere: "),
        ({"rewards": {"r": {"source": "reward/plain"}}}, "rewards.r: unknown reward 'plain': did you mean 'plainness'"),
        ({"prompts": {"source": "missing"}}, "missing: "),
        ({"lora": {"targets": ["q_prj"]}}, "lora.targets: the model has no module 'q_prj'; did you mean 'q_proj'"),
    ],
)
def test_errors_are_reported(ground: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    status, output = lines(write_ppo(tmp_path, ground, **changes), "--out", tmp_path / "out")
    assert status == 2 and message in output, output
    assert not weights(tmp_path / "out")


def test_a_reward_that_cannot_teach_stops_the_command_before_a_policy_is_trained(ground: Path, tmp_path: Path) -> None:
    rewards = {name: {"source": f"{ground / 'own.py'}:{name}"} for name in ("vowels", "constant")}
    status, output = lines(write_ppo(tmp_path, ground, rewards=rewards, sft=None), "--out", tmp_path / "out")
    assert status == 2 and "rewards.constant: gives 0.25 to all 6 completions of the SFT model" in output, output
    assert not (tmp_path / "out" / "policies").exists()


def test_a_saturated_reward_gives_a_warning(ground: Path, tmp_path: Path) -> None:
    rewards = {"sure": {"source": f"{ground / 'own.py'}:sure"}}
    training = {**small_ppo(ground)["training"], "updates": 1}
    spec = write_ppo(tmp_path, ground, rewards=rewards, training=training, sft=None)
    status, output = lines(spec, "--out", tmp_path / "out")
    assert status == 0 and "warning: sure: saturated: " in output, output
    assert "**Warning.** sure: saturated" in (tmp_path / "out" / "report.md").read_text()
    adapter = json.loads((tmp_path / "out" / "policies" / "sure" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(ground / "model")  # there was no SFT to make


def test_one_command_at_a_time_writes_in_a_folder(ground: Path, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "out"
    out.mkdir()
    with (out / "ppo.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, output = lines(write_ppo(tmp_path, ground), "--out", out)
    assert status == 2 and "another `lines ppo` is writing there" in output, output
