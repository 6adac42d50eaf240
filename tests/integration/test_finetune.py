"""Models of `lines finetune` are experts of `lines run`; killed, lost or stopped trainings end with the same bits."""

import fcntl
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from small_finetune import outputs, small_finetune, write_finetune
from small_run import Lines

COMMAND = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "finetune"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, decoded: Path) -> Path:
    """Return the folder of the small fine-tuning, done without interruption."""
    folder = tmp_path_factory.mktemp("finetuned")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))
        status, output = Lines(folder, {})("finetune", write_finetune(folder), "--out", folder / "out")
    assert status == 0, output
    return folder / "out"


def start(spec: Path, out: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, str(spec), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(process: subprocess.Popen[str], path: Path) -> None:
    """Wait for a file that the process writes."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[0]


def test_a_finished_model_is_left_alone_and_a_changed_spec_refused(lines: Lines, undisturbed: Path) -> None:
    before = outputs(undisturbed)
    status, output = lines("finetune", write_finetune(lines.folder), "--out", undisturbed)
    assert status == 0 and "2 of 2 are finished: full/emoji, lora/emoji" in output, output
    training = {**small_finetune()["training"], "seed": 1}
    status, output = lines("finetune", write_finetune(lines.folder, training=training), "--out", undisturbed)
    assert status == 2 and "trained differently: training.seed 0, not 1; choose another --out" in output, output
    assert outputs(undisturbed) == before


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_models_are_experts_of_a_run(lines: Lines, undisturbed: Path, method: str) -> None:
    """A model has the same validation accuracy in a run as in its training; adapters are read as low-rank factors."""
    spec = lines.spec(
        experts={"emoji": str(undisturbed / method / "emoji")},
        tasks=["emoji"],
        arms={"tuned": {"edit": "each_expert"}},
        controls=[],
        limits={"val": 40, "test": 15},
    )
    status, output = lines.run(spec, lines.folder / "run")
    assert status == 0, output
    rows = pq.read_table(lines.folder / "run" / "scores.parquet").to_pylist()
    scores = {(row["arm"], row["split"]): row["value"] for row in rows}
    result = json.loads((undisturbed / method / "emoji" / "train.json").read_text())
    assert scores["tuned", "val"] == pytest.approx(result["val_accuracy"])


def test_a_command_that_is_stopped_and_then_killed_resumes(lines: Lines, undisturbed: Path) -> None:
    spec, out = write_finetune(lines.folder), lines.folder / "out"
    for name, number, status in (("full", signal.SIGINT, 130), ("lora", signal.SIGKILL, -signal.SIGKILL)):
        process = start(spec, out)
        until(process, out / name / "emoji" / "checkpoint.safetensors")
        process.send_signal(number)
        output = process.communicate()[0]
        assert process.returncode == status, output
        assert not (out / name / "emoji" / "train.json").exists()
    status, output = lines("finetune", spec, "--out", out)
    assert status == 0 and "1 of 2 are finished: full/emoji 1 of 2 resume from a checkpoint: lora/emoji" in output, (
        output
    )
    assert outputs(out) == outputs(undisturbed)


@pytest.mark.cluster
def test_on_ray_with_a_worker_and_the_board_killed_the_models_are_the_same(lines: Lines, undisturbed: Path) -> None:
    spec, out = write_finetune(lines.folder, resources={"workers": 2}), lines.folder / "out"
    driver = start(spec, out)
    until(driver, out / "full" / "emoji" / "checkpoint.safetensors")
    running = psutil.Process(driver.pid).children(recursive=True)
    killed = [p for p in running if p.name().startswith(("ray::_train", "ray::_Board"))]
    names = {p.name().partition("(")[0] for p in killed}
    for process in killed:
        process.kill()
    output = driver.communicate()[0]
    # The board's process is not always up by the first checkpoint; then only a worker is lost.
    assert driver.returncode == 0 and "ray::_train" in names, (names, output)
    assert outputs(out) == outputs(undisturbed)


def test_a_full_disk_is_an_error_and_the_same_command_resumes(lines: Lines, undisturbed: Path) -> None:
    spec, out = write_finetune(lines.folder, methods={"full": {}}), lines.folder / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        status, output = lines("finetune", spec, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2 and "checkpoint.safetensors: cannot write" in output and "nothing was left behind" in output, (
        output
    )
    assert lines("finetune", spec, "--out", out)[0] == 0
    name = "full/emoji/model.safetensors"
    assert outputs(out)[name] == outputs(undisturbed)[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["emojis"]}, "tasks.emojis: embedded/emojis: no such embedded pack; did you mean 'emoji'"),
        ({"tasks": ["emoji_mono"]}, "tasks.emoji_mono: emoji_mono: holds no training images"),
        ({"methods": {"lora": {"params": {"rank": 97}}}}, "lora/emoji: params.rank: must be in [1, 96]"),
        ({"base": "embedded/bass"}, "base: embedded/bass: not embedded; did you mean 'base'"),
    ],
)
def test_errors_are_reported_before_anything_is_trained(lines: Lines, changes: dict[str, Any], message: str) -> None:
    status, output = lines("finetune", write_finetune(lines.folder, **changes), "--out", lines.folder / "out")
    assert status == 2 and message in output, output
    assert [p.name for p in (lines.folder / "out").iterdir()] == ["finetune.lock"]


def test_training_that_diverges_names_the_run_and_the_others_are_made(lines: Lines) -> None:
    methods = {"full": {"training": {"lr": 1e30, "warm_up": 0}}, "last_block": {}}
    out = lines.folder / "out"
    status, output = lines("finetune", write_finetune(lines.folder, methods=methods), "--out", out)
    assert status == 2 and "full/emoji: the loss is" in output and "at a rate of 9.33e+29" in output, output
    assert (out / "last_block" / "emoji" / "train.json").exists()
    assert not (out / "full" / "emoji" / "model.safetensors").exists()


def test_models_on_the_disk_of_another_node_are_reported(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.train.launch.train_here", lambda train, jobs, watch: {})
    status, output = lines("finetune", write_finetune(lines.folder), "--out", lines.folder / "out")
    assert status == 2 and "2 models were trained but are not here (full/emoji, lora/emoji)" in output, output


def test_one_command_at_a_time_writes_in_a_folder(lines: Lines) -> None:
    out = lines.folder / "out"
    out.mkdir()
    with (out / "finetune.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, output = lines("finetune", write_finetune(lines.folder), "--out", out)
    assert status == 2 and "another `lines finetune` is writing there" in output, output
