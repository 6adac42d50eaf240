"""Proves that an intact shared cache saves work, and that a broken one is skipped with one warning."""

import json
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
from faulty_place import memory_place, names
from toy import IDENTITY

from pipeline.messages import EvalRequest, ShardScore
from pipeline.recipe import Recipe
from pipeline.storage.caches import records as cache_records
from pipeline.storage.caches.records import CacheRecords
from pipeline.storage.caches.scores import ScoreCache
from tasks.files.cache import cache_root, cached
from tasks.files.checksums import seal
from tasks.files.object_store import StoreFolder
from tasks.stats import Stats

RECIPE = Recipe.make("sum", "linear", 0.2, 0.8)
REQUEST = EvalRequest(RECIPE, RECIPE.id("f"), "cats", "val", 1, 4, 8)
SCORE = ShardScore(REQUEST, Stats(4, 2.0, 2.0), np.array([True, False, True, False]), 0.2)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> StoreFolder:
    place = memory_place()
    monkeypatch.setenv("LINES_SWEEP_SHARED_CACHE", place.url)
    return place


def on_node(node: Path, monkeypatch: pytest.MonkeyPatch, made: list[str], part: str = "images") -> Path:
    """Get an entry on a node, which adds its name to `made` if it has to make it."""
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(node))

    def create(path: Path) -> None:
        made.append(node.name)
        path.mkdir()
        (path / "val.arrow").write_bytes(b"pictures" * 1000)

    return cached(cache_root() / part / "key", create)


@pytest.mark.parametrize(("part", "makers"), [("images", ["a"]), ("language", ["a", "b"])])
def test_what_is_named_by_its_content_is_made_on_one_node(
    shared: StoreFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, makers: list[str]
) -> None:
    made: list[str] = []
    folders = [on_node(tmp_path / node, monkeypatch, made, part) for node in ("a", "b")]
    assert made == makers
    assert {(f / "val.arrow").read_bytes() for f in folders} == {b"pictures" * 1000}
    own = [sorted(p.name for p in f.parent.iterdir() if p.suffix != ".lock") for f in folders]
    assert own == [["key", "key.manifest"]] * 2


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"hello"])
def test_a_damaged_entry_is_made_again_with_a_warning(
    shared: StoreFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: bytes,
) -> None:
    made: list[str] = []
    on_node(tmp_path / "a", monkeypatch, made)
    data = shared.read("images/key.tar") or b""
    shared.write("images/key.tar", damage or data[:-5])
    on_node(tmp_path / "b", monkeypatch, made)
    assert made == ["a", "b"] and "images/key.tar: its " in caplog.text and "ignored" in caplog.text
    assert shared.read("images/key.tar") == data


def test_scores_of_one_node_are_known_on_another_and_to_the_bit(shared: StoreFolder, tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "a", IDENTITY)
    cache.add([SCORE])
    cache.flush()
    found = ScoreCache(tmp_path / "b", IDENTITY).get(REQUEST)
    assert found is not None and found.stats == SCORE.stats and found.outcomes.tolist() == SCORE.outcomes.tolist()
    assert ScoreCache(tmp_path / "b", replace(IDENTITY, numerics="other")).get(REQUEST) is None


def test_a_damaged_object_of_scores_is_left_out_with_a_warning(
    shared: StoreFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for start in (4, 8):
        cache = ScoreCache(tmp_path / str(start), IDENTITY)
        cache.add([replace(SCORE, request=replace(REQUEST, start=start, stop=start + 4))])
        cache.flush()
    name = next(names(shared))
    shared.write(name, (shared.read(name) or b"").replace(b"[4,2.0,2.0]", b"[4,4.0,4.0]"))
    cache = ScoreCache(tmp_path / "c", IDENTITY)
    known = [s for start in (4, 8) if (s := cache.get(replace(REQUEST, start=start, stop=start + 4)))]
    assert len(known) == 1 and known[0].stats == SCORE.stats and name in caplog.text


@pytest.mark.parametrize(
    "record",
    [
        {"record": "score", "data": "d"},
        {"record": "score", "data": "d", "request": []},
        {"record": "failure", "data": "d", "request": [RECIPE.to_json(), "i", "cats", "val", 0, 0, 1], "kind": "k"},
        {"no": "record"},
    ],
)
def test_a_sealed_object_that_holds_no_scores_is_left_out_with_a_warning(
    shared: StoreFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture, record: dict[str, object]
) -> None:
    """Everyone with access to the cache can write there."""
    cache = ScoreCache(tmp_path / "a", IDENTITY)
    cache.add([SCORE])
    cache.flush()
    name = next(names(shared)).rpartition("/")[0] + "/other.jsonl"
    shared.write(name, seal(json.dumps(record).encode() + b"\n"))
    assert ScoreCache(tmp_path / "b", IDENTITY).get(REQUEST) is not None and name in caplog.text


def shared_records(node: Path) -> CacheRecords:
    return CacheRecords(node, "scores/x", batch=1, shared_batch=1)


def test_records_that_came_twice_are_merged_once(
    shared: StoreFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs that merge at the same time leave them, and so does a store that refuses deletions."""
    monkeypatch.setattr(cache_records, "MANY", 3)
    monkeypatch.setattr(StoreFolder, "delete", lambda self, names: None)
    for i in range(5):
        shared_records(tmp_path / "writer").add([{"record": "score", "number": i}])
    sizes = []
    for _ in range(3):
        assert set(shared_records(tmp_path / "reader").read(itemgetter("number"))) == set(range(5))
        sizes.append(max(len(shared.read(name) or b"") for name in names(shared)))
    assert len(set(sizes)) == 1


def test_many_objects_become_one_and_nothing_is_lost(
    shared: StoreFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_records, "MANY", 3)
    for i in range(5):
        shared_records(tmp_path / "writer").add([{"record": "score", "number": i}])
    for _ in range(2):
        assert sorted(shared_records(tmp_path / "reader").read(itemgetter("number"))) == list(range(5))
        assert len(list(names(shared))) == 1


def test_a_cache_that_refuses_is_one_warning_and_the_work_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LINES_SWEEP_SHARED_CACHE", f"nothing://{tmp_path.name}/x")
    made: list[str] = []
    for node in ("a", "b"):
        on_node(tmp_path / node, monkeypatch, made)
    cache = ScoreCache(tmp_path, IDENTITY)
    cache.add([SCORE])
    cache.flush()
    assert made == ["a", "b"] and ScoreCache(tmp_path, IDENTITY).get(REQUEST) is not None
    assert len(caplog.records) == 1 and "LINES_SWEEP_SHARED_CACHE" in caplog.text


def test_a_local_cache_in_a_store_names_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", "s3://bucket/cache")
    with pytest.raises(ValueError, match="LINES_SWEEP_CACHE=s3://bucket/cache: must be .* LINES_SWEEP_SHARED_CACHE"):
        cache_root()
