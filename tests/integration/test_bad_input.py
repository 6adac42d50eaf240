"""Proves that errors of bad input name the file before a worker starts; a full disk or Ctrl-C loses nothing."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import Lines, tables

from pipeline.records.journal import Journal, read_history


class RunsCode:
    """What a hostile checkpoint holds: reading it with plain pickle makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def truncated(good: Path, folder: Path) -> Path:
    path = folder / "truncated.safetensors"
    path.write_bytes(good.read_bytes()[:-1000])
    return path


def other_architecture(good: Path, folder: Path) -> Path:
    state = {k: v for k, v in load_file(good).items() if ".resblocks.7." not in k}
    save_file(state, folder / "shallow.safetensors")
    return folder / "shallow.safetensors"


def other_width(good: Path, folder: Path) -> Path:
    state = load_file(good) | {"visual.conv1.weight": torch.zeros(64, 3, 8, 8)}
    save_file(state, folder / "narrow.safetensors")
    return folder / "narrow.safetensors"


def with_nan(good: Path, folder: Path) -> Path:
    state = load_file(good)
    state["visual.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, folder / "nan.safetensors")
    return folder / "nan.safetensors"


def hostile(good: Path, folder: Path) -> Path:
    torch.save(
        {"state_dict": {"visual.proj": torch.zeros(1)}, "extra": RunsCode(folder / "ran")}, folder / "hostile.pt"
    )
    return folder / "hostile.pt"


def hostile_pickle(good: Path, folder: Path) -> Path:
    (folder / "hostile.bin").write_bytes(pickle.dumps(RunsCode(folder / "ran")))
    return folder / "hostile.bin"


def missing(good: Path, folder: Path) -> Path:
    return folder / "missing.safetensors"


def empty(good: Path, folder: Path) -> Path:
    (folder / "empty.safetensors").touch()
    return folder / "empty.safetensors"


BAD_EXPERTS = {
    truncated: "truncated or not a safetensors file",
    other_architecture: "12 missing tensors (transformer.resblocks.7.",
    other_width: "conv1.weight [64, 3, 8, 8], expected [96, 3, 8, 8]",
    with_nan: "NaN or infinite values in visual.conv1.weight",
    hostile: "would run code",
    hostile_pickle: "refused: ",
    missing: "missing.safetensors",
    empty: "the file is empty",
}


@pytest.mark.parametrize("make", BAD_EXPERTS, ids=lambda make: make.__name__)
def test_a_bad_expert_is_told_with_its_file_before_any_worker_starts(
    lines: Lines, tmp_path: Path, make: Callable[[Path, Path], Path]
) -> None:
    bad = make(lines.experts["mnist"], tmp_path)
    spec = lines.spec(experts={**{k: str(v) for k, v in lines.experts.items()}, "mnist": str(bad)})
    status, output = lines.run(spec, tmp_path / "run")
    assert status == 2 and "Traceback" not in output, output
    assert "experts.mnist: " in output and bad.name in output and BAD_EXPERTS[make] in output, output
    assert not (tmp_path / "run").exists() and not (tmp_path / "ran").exists()


def test_two_runs_in_one_folder_at_once_are_refused(lines: Lines, run_folder: Path, undisturbed: Path) -> None:
    run_folder.mkdir()
    journal = Journal(run_folder)
    status, output = lines.run(lines.spec(), run_folder)
    assert status == 2 and "another run is writing in this folder" in output
    journal.close()
    assert lines.run(lines.spec(), run_folder)[0] == 0
    assert tables(run_folder) == tables(undisturbed)


@contextmanager
def limited_files(folder: Path) -> Iterator[None]:
    """No file may grow beyond 16 KiB, as with a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """`folder` is a file system with 16 KiB left."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        file.write(b"\0" * (shutil.disk_usage(folder).free - 16 * 1024))
    yield
    filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system is not permitted here; the limit on a file's size stands in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("no_space", [limited_files, full_disk], ids=lambda f: f.__name__)
def test_without_space_the_journal_is_whole_and_the_same_command_goes_on(
    lines: Lines, request: pytest.FixtureRequest, undisturbed: Path, no_space: Callable[[Path], object]
) -> None:
    folder: Path = request.getfixturevalue("disk" if no_space is full_disk else "tmp_path")
    spec = lines.spec()
    with no_space(folder):  # type: ignore[attr-defined]
        status, output = lines.run(spec, folder / "run")
    assert status == 2 and "Traceback" not in output, output
    assert "no space left" in output, output
    kept = read_history(folder / "run").answers
    assert kept and not read_history(folder / "run").finished
    assert lines.run(spec, folder / "run")[0] == 0
    assert tables(folder / "run") == tables(undisturbed)
    journal = (folder / "run" / "journal.jsonl").read_text()
    assert journal.count('"record":"score"') == len(read_history(folder / "run").answers), "a shard was scored twice"


PLUGIN = '''
"""A task that cannot score its sample 17."""

import numpy as np

from tasks.base import ShardResult
from tasks.registry import TASKS
from tasks.stats import Stats


class Picky:
    metric, fingerprint = "accuracy", "picky 1"

    def __init__(self, name):
        self.name = name

    def num_samples(self, split):
        return 30

    def evaluate(self, backbone, split, start, stop):
        if split == "test" and start <= 17 < stop:
            raise KeyError("sample 17 has no label")
        outcomes = np.arange(start, stop) % 3 > 0
        return ShardResult(Stats(stop - start, float(outcomes.sum()), float(outcomes.sum())), outcomes)


TASKS.register("picky", lambda request, backbone, progress: Picky(request.name))
'''


def test_a_task_that_raises_on_one_sample_is_a_failure_with_its_cause_and_the_rest_is_scored(
    lines: Lines, tmp_path: Path, undisturbed: Path
) -> None:
    (tmp_path / "picky.py").write_text(PLUGIN)
    tasks = {"clipart": "clipart", "mnist": "mnist", "odd": {"source": "picky"}}
    status, output = lines.run(lines.spec(tasks=tasks, plugins=["picky.py"]), tmp_path / "run")
    assert status == 1 and "shards failed" in output and "sample 17 has no label" in output, output
    failures = json.loads((tmp_path / "run" / "provenance.json").read_text())["failures"]
    assert {(f["task"], f["split"], f["shard"], f["kind"]) for f in failures} == {("odd", "test", 1, "application")}
    assert all(f["cause"] == "KeyError: 'sample 17 has no label'" for f in failures)
    scores = pq.read_table(tmp_path / "run" / "scores.parquet").to_pylist()
    scored = {(s["task"], s["split"]) for s in scores}
    assert ("odd", "val") in scored and ("odd", "test") not in scored and ("mnist", "test") in scored


def test_ctrl_c_keeps_what_was_scored_and_the_same_command_finishes(
    lines: Lines, run_folder: Path, undisturbed: Path
) -> None:
    spec = lines.spec()
    words = ["run", str(spec), "--out", str(run_folder), "--no-cache"]
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while len(read_history(run_folder).answers) < 10 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=60)
    kept = read_history(run_folder)
    assert child.returncode == 130 and "rerun the same command to resume" in " ".join(output.split()), output
    assert len(kept.answers) >= 10 and not kept.finished
    assert lines.run(spec, run_folder)[0] == 0
    assert tables(run_folder) == tables(undisturbed)
    scored = (run_folder / "journal.jsonl").read_text().count('"record":"score"')
    assert scored == len(read_history(run_folder).answers), "a shard was scored twice"
