"""Proves that mirrors in MLflow and in Weights & Biases hold every candidate once, and nothing of the machine."""

import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_head import wait_until
from small_run import Lines
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.run.run import run
from pipeline.watch.mirrors.mlflow import MlflowMirror
from pipeline.watch.mirrors.snapshot import CandidateSnapshot, RunSnapshot


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    run(make_plan(toy_spec()), IDENTITY, folder / "run", lambda: LocalPool(ToyEvaluator("w")), None)
    return folder / "run"


def half(whole: Path, folder: Path) -> Path:
    """Write the first half of a run, as if it was killed."""
    folder.mkdir()
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    return folder


def test_a_mirror_in_mlflow_holds_every_candidate_once(lines: Lines, toy_run: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri, folder = f"sqlite:///{tmp_path}/mlflow.db", half(toy_run, tmp_path / "half")
    assert lines("mirror", folder, "--mlflow", uri)[0] == 0
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("toy").experiment_id
    before = {r.data.tags["lines.candidate"]: r for r in client.search_runs([experiment], max_results=1000)}
    (folder / "journal.jsonl").write_bytes((toy_run / "journal.jsonl").read_bytes())
    for _ in range(2):
        status, output = lines("mirror", folder, "--mlflow", uri)
        assert status == 0 and "finished" in output
    runs = client.search_runs([experiment], max_results=1000)
    after = {r.data.tags["lines.candidate"]: r for r in runs}
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(toy_run / "candidates.parquet").to_pylist()
    assert len(runs) == len(after) == len(rows) + 1 > len(before) > 1 and before.keys() < after.keys()
    parent = after.pop("")
    assert parent.info.status == "FINISHED" and parent.data.metrics["candidates"] == len(rows)
    assert {r.data.tags["mlflow.parentRunId"] for r in after.values()} == {parent.info.run_id}
    mirrored = sorted(r.data.metrics["objective"] for r in after.values() if "objective" in r.data.metrics)
    assert mirrored == sorted(sum(row["objectives"]) for row in rows if row["objectives"])
    chosen = [r for r in after.values() if r.data.tags["lines.chosen"] == "true" and r.data.params["arm"] == "LiNeS"]
    assert len(chosen) == 3 and all("test/cats" in r.data.metrics for r in chosen)
    one = chosen[0]
    assert len(client.get_metric_history(one.info.run_id, "val/cats")) <= 2, "repeating it writes nothing"


def snapshot(*rows: CandidateSnapshot, finished: bool = False) -> RunSnapshot:
    return RunSnapshot("r1", "toy", {}, {"fingerprint": "f"}, rows, finished)


def row(key: str, value: float | None, failure: str = "", chosen: bool = True) -> CandidateSnapshot:
    metrics = {} if value is None else {"objective": value}
    return CandidateSnapshot(key, key, "LiNeS", {"arm": "LiNeS", "expert": key}, metrics, failure, chosen)


class Away:
    """Wraps a method of MLflow's client, which fails at one of its calls like a server that is away for a moment."""

    def __init__(self, client: object, name: str, call: int) -> None:
        self.method, self.left = getattr(client, name), call
        setattr(client, name, self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        from mlflow.exceptions import MlflowException

        self.left -= 1
        if self.left == 0:
            raise MlflowException("away")
        return self.method(*args, **options)


def by_candidate(mirror: MlflowMirror) -> dict[str, Any]:
    client = mirror.client
    runs = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    found = {r.data.tags["lines.candidate"]: r for r in runs}
    assert len(found) == len(runs), "no candidate twice"
    return found


def test_mlflow_shows_what_is_and_not_the_most_that_was(tmp_path: Path) -> None:
    mirror = MlflowMirror(f"sqlite:///{tmp_path}/m.db")
    mirror.show(snapshot(row("a", 0.9), row("b", None, "lost on t: gone")))
    mirror.show(snapshot(row("a", 0.9), row("b", 0.5), finished=True))
    shown = by_candidate(mirror)
    assert shown[""].data.metrics == {"candidates": 2, "failed": 0, "best/LiNeS": 0.7}
    assert shown["b"].info.status == "FINISHED" and not shown["b"].data.tags.get("lines.failure")


@pytest.mark.parametrize(
    ("method", "call"), [("search_runs", 1), ("log_batch", 1), ("log_batch", 2), ("set_terminated", 1)]
)
def test_what_mlflow_missed_while_it_was_away_is_written_once_it_answers(
    tmp_path: Path, method: str, call: int
) -> None:
    uri, rows = f"sqlite:///{tmp_path}/m.db", (row("a", 0.9), row("b", 0.4, chosen=False))
    MlflowMirror(uri).show(snapshot(rows[0]))
    mirror = MlflowMirror(uri)
    Away(mirror.client, method, call)
    with pytest.raises(ValueError, match="away"):
        mirror.show(snapshot(*rows))
    mirror.show(snapshot(*rows))
    shown = by_candidate(mirror)
    assert shown["b"].data.params == {"arm": "LiNeS", "expert": "b"} and shown["b"].data.metrics == {"objective": 0.4}
    assert shown[""].data.metrics["candidates"] == 2 and len(shown) == 3


def test_an_experiment_that_was_deleted_in_mlflow_is_made_again(tmp_path: Path) -> None:
    mirror = MlflowMirror(f"sqlite:///{tmp_path}/m.db")
    mirror.show(snapshot(row("a", 0.9)))
    mirror.client.delete_experiment(mirror.experiment)
    again = MlflowMirror(f"sqlite:///{tmp_path}/m.db")
    again.show(snapshot(row("a", 0.9)))
    assert by_candidate(again).keys() == {"", "a"}


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: blocks of 32 KiB of LevelDB's log format behind 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def ended(path: Path) -> bool:
    return any(r.WhichOneof("record_type") == "exit" for r in wandb_records(path))


def test_a_mirror_in_weights_and_biases_tells_the_run_and_nothing_of_the_machine(
    lines: Lines, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    folder, whole = tmp_path / "run", (toy_run / "journal.jsonl").read_bytes()
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))

    def end() -> None:
        wait_until(lambda: any((tmp_path / "wandb").glob("offline-run-*/*.wandb")), 120)
        (folder / "journal.jsonl").write_bytes(whole)

    ending = threading.Thread(target=end)
    ending.start()
    status, output = lines("mirror", folder, "--wandb", "lines", "--follow", "--every", 1)
    ending.join()
    assert status == 0 and "mirrored, not finished" in output, output
    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    records = wait_until(lambda: ended(path) and list(wandb_records(path)), 120)
    (started,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert started.display_name == "toy" and started.project == "lines"
    assert {item.key for item in started.config.update} >= {"spec", "fingerprint"}
    logged = {
        item.key or "/".join(item.nested_key): item.value_json
        for r in records
        if r.WhichOneof("record_type") == "history"
        for item in r.history.item
    }
    assert float(logged["best/LiNeS"]) > 0 and int(logged["candidates_table/nrows"]) > 50
    summaries = [i for r in records if r.WhichOneof("record_type") == "summary" for i in r.summary.update]
    assert [i.value_json for i in summaries if i.key == "finished"][-1] == "true"
    assert started.host == "lines" and b"0123456789" * 4 not in path.read_bytes()


def test_bad_places_for_mirrors(lines: Lines, toy_run: Path, tmp_path: Path) -> None:
    for words, message in [
        (["mirror", toy_run], "needs a target: --mlflow URI"),
        (["mirror", toy_run, "--mlflow", "http://me:secret@host"], "a user or a password does not belong in a URI"),
        (["mirror", toy_run, "--mlflow", "https://secret@host"], "a user or a password does not belong in a URI"),
        (["mirror", toy_run, "--mlflow", str(tmp_path)], "such as --mlflow sqlite:///mlflow.db"),
        (["mirror", tmp_path, "--mlflow", f"sqlite:///{tmp_path}/m.db"], "no run here"),
    ]:
        status, output = lines(*words)
        assert status == 2 and message in output and "secret" not in output
