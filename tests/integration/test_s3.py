"""A run in a bucket of a real S3 server has the same tables through kills, refusals and silence, and one writer."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_run import Lines, tables
from store import KEYS, Proxy, free_port, s3_server

from pipeline.storage.run_folder import mirror_of, run_folder
from pipeline.storage.segments import Chain
from tasks.files.object_store import StoreFolder

URL = "s3://bucket/runs/x"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, int]]:
    with s3_server() as found:
        yield found


@pytest.fixture
def store(server: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """An empty bucket behind a proxy."""
    proxy = Proxy(server[0])
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": proxy.url}.items():
        monkeypatch.setenv(name, value)
    bucket = StoreFolder.open("s3://bucket/")
    bucket.delete(bucket.entries())
    yield proxy
    proxy.close()


@pytest.fixture
def lines(lines: Lines, tmp_path: Path, decoded: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Each test has its own local copies of runs, and shares the decoded data."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for part in ("images", "heads"):
        (decoded / part).mkdir(exist_ok=True)
        (cache / part).symlink_to(decoded / part)
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(cache))
    return lines


def started(lines: Lines, spec: Path) -> subprocess.Popen[str]:
    words = ["run", str(spec), "--out", URL, "--no-cache"]
    often = "from pipeline.storage import uploader; uploader.EVERY = 0.02"  # what it does takes a second
    command = [sys.executable, "-c", f"{often}; from pipeline.cli.main import main; main()", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def journal() -> bytes:
    return Chain(StoreFolder.open(URL), "reader").read()


def until(condition: Callable[[], object], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def scored(lines_: bytes) -> int:
    return lines_.count(b'"record":"score"')


def in_store() -> dict[str, bytes]:
    with run_folder(URL) as folder:
        return tables(folder)


def test_a_run_in_a_bucket_has_the_tables_of_a_local_one_and_no_secret(
    lines: Lines, store: Proxy, undisturbed: Path
) -> None:
    status, output = lines("run", lines.spec(), "--out", URL, "--no-cache")
    assert status == 0 and f"report: {URL}/report.html" in output, output
    assert in_store() == tables(undisturbed)
    bucket = StoreFolder.open("s3://bucket")
    names = set(bucket.entries())
    assert "runs/x/report.html" in names and "runs/x/lease.json" not in names
    kept = [*bucket.read_many(names).values(), *(p.read_bytes() for p in mirror_of(URL).rglob("*") if p.is_file())]
    assert not any(secret.encode() in data for secret in KEYS.values() if "east" not in secret for data in kept if data)
    for words in (["report", URL], ["export", URL, "--arm", "sum", "-o", str(lines.folder / "exported")]):
        assert lines(*words)[0] == 0, words
    assert any((lines.folder / "exported").glob("*.safetensors"))
    status, output = lines("run", lines.spec(), "--out", URL, "--no-cache")
    assert status == 0 and scored(journal()) == scored((undisturbed / "journal.jsonl").read_bytes())


def test_a_killed_run_resumed_on_another_machine_scores_only_what_is_missing(
    lines: Lines, store: Proxy, undisturbed: Path, tmp_path: Path
) -> None:
    """The second machine has only what the bucket holds."""
    spec = lines.spec()
    child = started(lines, spec)
    store.passed = lambda path, body: child.kill() if "/journal/" in path and scored(body) else None
    child.communicate()
    store.passed = lambda path, body: None
    kept = scored(journal())
    mirror_of(URL).rename(tmp_path / "lost")
    status, output = lines("run", spec, "--out", URL, "--no-cache")
    assert status == 0, output
    assert in_store() == tables(undisturbed)
    whole = scored((undisturbed / "journal.jsonl").read_bytes())
    assert 0 < kept < whole and scored(journal()) == whole, "a shard was scored twice"


def test_a_second_driver_is_refused_and_a_server_that_is_silent_or_busy_is_waited_for(
    lines: Lines, store: Proxy, server: tuple[int, int], undisturbed: Path
) -> None:
    spec = lines.spec()
    child = started(lines, spec)
    try:
        until(lambda: StoreFolder.open(URL).read("lease.json"), child)
        child.send_signal(signal.SIGSTOP)  # else it may end first
        status, output = lines("run", spec, "--out", URL, "--no-cache")
        assert status == 2 and "another run on this machine is writing there" in output, output
        os.kill(server[1], signal.SIGSTOP)
    finally:
        child.send_signal(signal.SIGCONT)
    time.sleep(3)
    store.answers["PUT"] = 503, "SlowDown"
    os.kill(server[1], signal.SIGCONT)
    until(lambda: store.refused, child)
    store.answers.clear()
    output, _ = child.communicate()
    assert child.returncode == 0, output
    assert in_store() == tables(undisturbed)


def test_writes_that_are_denied_stop_the_run_and_lose_nothing(lines: Lines, store: Proxy, undisturbed: Path) -> None:
    spec = lines.spec()
    store.answers["PUT"], store.only = (403, "AccessDenied"), "/journal/"
    status, told = lines("run", spec, "--out", URL, "--no-cache")
    assert status == 2 and "permission denied to write" in told, told
    assert f"what was scored is kept in {mirror_of(URL)}" in told, told
    store.answers.clear()
    status, output = lines("run", spec, "--out", URL, "--no-cache")
    assert status == 0 and "were not sent to the store by an earlier run" in output, output
    assert in_store() == tables(undisturbed)
    assert scored(journal()) == scored((undisturbed / "journal.jsonl").read_bytes()), "a shard was scored twice"


@pytest.mark.parametrize(
    ("refused", "out", "message"),
    [
        ({"PUT": (403, "AccessDenied")}, URL, "lease.json: permission denied to write"),
        ({"GET": (403, "AccessDenied")}, URL, "journal: permission denied to list"),
        ({}, "s3://no-such-bucket/x", "the bucket does not exist"),
        ({}, "s3://me:secret@bucket/x", "s3://bucket/x: was given with a user or a password"),
        ({}, "nothing://bucket/x", "nothing://: "),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_before_preparation(
    lines: Lines, store: Proxy, refused: dict[str, tuple[int, str]], out: str, message: str
) -> None:
    store.answers.update(refused)
    status, output = lines("run", lines.spec(experts={"mnist": "missing"}, tasks=["mnist"]), "--out", out)
    assert status == 2 and message in output and "secret" not in output.replace("lease", ""), output
    assert "missing" not in output, output


def test_the_error_without_credentials_or_a_server_names_what_to_set(
    lines: Lines, store: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    status, output = lines("run", lines.spec(), "--out", URL)
    assert status == 2 and "the store gives no answer" in output and "AWS_ENDPOINT_URL" in output, output
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(lines.folder))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    status, output = lines("run", lines.spec(), "--out", URL)
    assert status == 2 and "no usable credentials" in output and "AWS_ACCESS_KEY_ID" in output, output


def test_checkpoints_and_several_runs_in_a_bucket(lines: Lines, store: Proxy, undisturbed: Path) -> None:
    place = StoreFolder.open("s3://bucket/models")
    for name, path in lines.experts.items():
        place.upload(path, f"{name}.safetensors")
    experts = {name: f"s3://bucket/models/{name}.safetensors" for name in lines.experts}
    specs = []
    for name in ("one", "two"):
        path = lines.spec(experts=experts, name=name)
        specs.append(path.rename(path.with_name(f"{name}.yaml")))
    before = store.counts.copy()
    status, output = lines("run", *specs, "--out", "s3://bucket/runs")
    assert status == 0 and "index: s3://bucket/runs/index.html" in output, output
    with run_folder("s3://bucket/runs/one") as folder:
        assert tables(folder) == tables(undisturbed)
        header = json.loads((folder / "journal.jsonl").read_text().splitlines()[0])
    assert header["spec"]["experts"] == experts
    gets = store.counts["GET"] - before["GET"]
    merged, sources = lines.folder / "merged.safetensors", [w for url in experts.values() for w in ("--expert", url)]
    status, output = lines("merge", "--base", "embedded/base", *sources, "--method", "sum", "-o", merged)
    assert status == 0 and merged.is_file(), output
    assert store.counts["GET"] - before["GET"] == gets, "a checkpoint was fetched twice"
    status, output = lines("report", "s3://bucket/runs/one", "s3://bucket/runs/two")
    assert status == 0 and "index: s3://bucket/runs/index.html" in output, output


def test_a_second_node_takes_data_and_scores_from_the_shared_cache(
    lines: Lines, store: Proxy, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES_SWEEP_SHARED_CACHE", "s3://bucket/shared")
    for node in ("a", "b"):
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(lines.folder / f"node-{node}"))
        status, output = lines("run", lines.spec(), "--out", lines.folder / node)
        assert status == 0, output
        assert tables(lines.folder / node) == tables(undisturbed)
        counts = json.loads((lines.folder / node / "provenance.json").read_text())["counts"]
        assert counts["shards_from_cache"] == (0 if node == "a" else counts["shards_scored"])
    assert any((lines.folder / "node-b" / "images").iterdir())
    shared = StoreFolder.open("s3://bucket/shared")
    assert {name.split("/")[0] for name in shared.entries()} == {"images", "heads", "scores"}
