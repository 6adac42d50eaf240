"""Proves that `lines plan` counts what a run scores, refuses what cannot fit with what would, and reads no weights."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_run import command, small_spec, write_experts, write_spec
from small_soup import write_soup, write_soup_spec

from pipeline.records.journal import read_history


@pytest.fixture(scope="module")
def soup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soup_spec(write_soup(tmp_path_factory.mktemp("soup")))


@pytest.fixture(scope="module")
def run(soup: Path) -> Path:
    status, output = command("run", soup, "--out", soup.parent / "run", "--no-cache")
    assert status == 0, output
    return soup.parent / "run"


def planned(output: str) -> int:
    found = re.search(r"at most ([\d,]+) (samples|completions)", output)
    assert found, output
    return int(found[1].replace(",", ""))


def test_as_many_completions_are_planned_as_a_run_makes(soup: Path, run: Path) -> None:
    status, output = command("plan", soup)
    assert status == 0
    assert planned(output) == pq.read_metadata(run / "completions.parquet").num_rows
    assert "at most 6 forward passes each; 1 worker" in output
    assert "hours: not known: give --throughput, --like RUN or --measure" in output


def test_hours_are_completions_over_the_throughput_of_a_former_run(soup: Path, run: Path) -> None:
    status, output = command("plan", soup, "--like", run)
    texts = [a for a in read_history(run).answers.values() if getattr(a, "texts", ())]
    rate = sum(a.stats.n for a in texts) / sum(sum(a.seconds) for a in texts)
    assert status == 0
    assert f"about {planned(output) / rate / 3600:.2f} hours, at {rate:,.1f} completions/s of each worker" in output


def test_given_throughput_and_workers_divide_the_samples(tmp_path: Path) -> None:
    experts = write_experts(tmp_path)
    resources = {"pool": "ray", "workers": 4, "per_worker": {"num_gpus": 0}}
    spec = write_spec(tmp_path, small_spec(experts, resources=resources, controls=[], limits={"val": 20, "test": 10}))
    status, output = command("plan", spec, "--throughput", "0.1")
    # References: 2 tasks of theta0, one of each expert. Edits and the merge: 3 + 3 + 1 candidates, of which lambda = 1
    # is the expert; each on both tasks, the chosen ones on test.
    assert (status, planned(output)) == (0, planned(command("validate", spec)[1]))
    assert f"about {planned(output) / 0.1 / 4 / 3600:.2f} hours, at 0.1 samples/s of each worker (given)" in output


def test_a_run_larger_than_the_gpu_is_refused_with_what_would_fit(soup: Path) -> None:
    status, output = command("plan", soup, "--device-memory", "0.001")
    assert status == 2
    assert "device memory: a worker needs 1.3 MiB, and may use 1.0 MiB of its GPU; what would fit: " in output
    assert "backbone.precision: bfloat16 (" in output


def test_more_workers_than_the_memory_holds_are_refused_with_their_number(soup: Path, tmp_path: Path) -> None:
    _, output = command("plan", soup)
    found = re.search(r"at most at once │ +│ ([\d.]+) (MiB|GiB)", output)
    assert found, output
    needed = float(found[1]) / (1024 if found[2] == "MiB" else 1)
    spec = write_soup_spec(soup.parent, name="many", resources={"workers": 2, "per_worker": {"num_cpus": 0.1}})
    status, output = command("plan", spec, "--host-memory", 1.5 * needed)
    assert status == 2
    assert "2 at once" in output and output.endswith("resources.workers: 1")


def test_no_weights_are_read(soup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a checkpoint is read")

    monkeypatch.setattr("pipeline.checkpoints.readers.load_file", refuse)
    monkeypatch.setattr("pipeline.checkpoints.lazy.StoredTensors.__getitem__", refuse)
    assert command("plan", soup)[0] == 0


def test_a_measured_worker_gives_the_hours(soup: Path) -> None:
    status, output = command("plan", soup, "--measure")
    assert status == 0 and "completions/s of each worker (measured here)" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--throughput", "3", "--measure"), "--throughput, --like and --measure: give one of them"),
        (("--like", "nowhere"), "--like nowhere: no such run, or it has scored nothing: give a folder of lines run"),
        (("--throughput", "0"), "--throughput: must be above 0"),
        (("--host-memory", "inf"), "--host-memory: must be above 0, got inf"),
        (("--device-memory", "nan"), "--device-memory: must be above 0, got nan"),
    ],
)
def test_wrong_options_are_refused(soup: Path, words: tuple[str, ...], message: str) -> None:
    status, output = command("plan", soup, *words)
    assert status == 2 and message in output


def test_a_wrong_base_and_a_missing_expert_are_named(soup: Path) -> None:
    spec = write_soup_spec(soup.parent, name="wrong", base="policies/brief")
    status, output = command("plan", spec)
    assert status == 2 and "base: policies/brief: a LoRA adapter, not a whole model" in output.replace(
        f"{soup.parent}/", ""
    )
    spec = write_soup_spec(soup.parent, name="lost", experts={"brief": "policies/brief", "open": "policies/lost"})
    status, output = command("plan", spec)
    assert status == 2 and "experts.open: " in output


def test_a_gpu_that_nothing_fits_on_needs_a_larger_machine(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, small_spec(write_experts(tmp_path)))
    status, output = command("plan", spec, "--device-memory", "0.005")
    assert status == 2 and "use a larger machine: even with backbone.precision: bfloat16 and " in output
    status, output = command("plan", spec, "--device-memory", "0.04")
    assert status == 2 and re.search(r"(what would fit|together would): .*bfloat16", output), output
