"""Proves that a cached score is found for the same samples under the same weights, and for nothing else."""

import errno
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import IDENTITY

from pipeline.messages import Completions, EvalRequest, Identity, ShardScore
from pipeline.recipe import Recipe
from pipeline.records.append_log import AppendLog
from pipeline.storage.caches.completions import CompletionCache
from pipeline.storage.caches.scores import ScoreCache, has_scores
from tasks.stats import Stats

RECIPE = Recipe.make("sum", "linear", 0.2, 0.8)
REQUEST = EvalRequest(RECIPE, RECIPE.id("f"), "cats", "val", 1, 4, 8)
SCORE = ShardScore(REQUEST, Stats(4, 2.0, 2.0), np.array([True, False, True, False]), 0.2)


@pytest.fixture
def cache(tmp_path: Path) -> ScoreCache:
    return ScoreCache(tmp_path, IDENTITY)


def test_scores_are_there_for_the_next_run(cache: ScoreCache, tmp_path: Path) -> None:
    assert cache.get(REQUEST) is None and not has_scores(tmp_path)
    cache.add([SCORE])
    cache.flush()
    assert has_scores(tmp_path)
    for again in (cache, ScoreCache(tmp_path, IDENTITY)):
        found = again.get(REQUEST)
        assert found is not None and found.stats == SCORE.stats and found.outcomes.tolist() == SCORE.outcomes.tolist()


def test_scores_of_a_program_that_rebuilt_or_scored_otherwise_are_not_found(
    cache: ScoreCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.add([SCORE])
    cache.flush()
    monkeypatch.setattr("pipeline.storage.caches.scores.FORMAT", "of another program")
    assert ScoreCache(tmp_path, IDENTITY).get(REQUEST) is None


@pytest.mark.parametrize(
    ("params", "calibration", "kept"),
    [
        ({"lambda_outside": 0.5}, {"cats": 2}, False),
        ({"lambda_outside": 0.5}, {}, True),
        ({}, {"cats": 2}, True),
        ({"lambda_outside": 0.5, "component.mlp": 0.5}, {"cats": 2}, True),
    ],
)
def test_only_edits_that_had_the_statistics_of_their_file_lose_their_older_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: dict[str, float], calibration: dict[str, int], kept: bool
) -> None:
    identity, recipe = (
        replace(IDENTITY, calibration=calibration),
        Recipe.make("single", weights=(1, 0, 0), params=params),
    )
    request = replace(REQUEST, recipe=recipe, recipe_id=recipe.id("f"))
    with monkeypatch.context() as older:
        older.setattr("pipeline.storage.caches.scores._had_stored_statistics", lambda recipe: False)
        _filled(tmp_path, identity, request)
    assert (ScoreCache(tmp_path, identity).get(request) is not None) == kept
    _filled(tmp_path, identity, request)
    assert ScoreCache(tmp_path, identity).get(request) is not None


def _filled(folder: Path, identity: Identity, request: EvalRequest) -> None:
    cache = ScoreCache(folder, identity)
    cache.add([replace(SCORE, request=request)])
    cache.flush()


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"numerics": "bfloat16"}])
def test_other_checkpoints_or_numerics_know_nothing_of_it(
    cache: ScoreCache, tmp_path: Path, change: dict[str, str]
) -> None:
    cache.add([SCORE])
    cache.flush()
    assert ScoreCache(tmp_path, replace(IDENTITY, **change)).get(REQUEST) is None


def test_other_data_under_the_same_name_is_another_task_and_a_new_name_is_not(
    cache: ScoreCache, tmp_path: Path
) -> None:
    cache.add([SCORE])
    cache.flush()
    changed = {**IDENTITY.tasks, "cats": ("new pictures", 90, 130)}
    assert ScoreCache(tmp_path, replace(IDENTITY, tasks=changed)).get(REQUEST) is None
    renamed = {"felines": IDENTITY.tasks["cats"]}
    asked = replace(REQUEST, task="felines")
    found = ScoreCache(tmp_path, replace(IDENTITY, tasks=renamed)).get(asked)
    assert found is not None and found.request == asked


def test_a_shard_of_the_same_number_with_other_samples_is_another_one(cache: ScoreCache) -> None:
    """A limit makes the last shard shorter, and another shard size moves them all."""
    cache.add([SCORE])
    for other in ({"stop": 7}, {"start": 3}, {"split": "test"}, {"task": "dogs"}, {"recipe_id": "0"}):
        assert cache.get(replace(REQUEST, **other)) is None, other
    shorter = replace(SCORE, request=replace(REQUEST, stop=6), stats=Stats(2, 1.0, 1.0), outcomes=SCORE.outcomes[:2])
    cache.add([shorter])
    assert [len(s.outcomes) for r in (REQUEST, shorter.request) if (s := cache.get(r))] == [4, 2]


def test_the_same_samples_under_another_shard_number_are_found(cache: ScoreCache) -> None:
    cache.add([SCORE])
    asked = replace(REQUEST, shard=5)
    found = cache.get(asked)
    assert found is not None and found.request == asked


def test_a_score_is_written_once(cache: ScoreCache, tmp_path: Path) -> None:
    for _ in range(2):
        cache.add([SCORE, SCORE])
        cache.flush()
    (file,) = (tmp_path / "scores").iterdir()
    assert file.read_bytes().count(b"\n") == 1


def test_while_another_run_writes_it_is_kept_for_later_and_nothing_fails(cache: ScoreCache, tmp_path: Path) -> None:
    cache.add([SCORE])
    cache.flush()
    (file,) = (tmp_path / "scores").iterdir()
    other = replace(SCORE, request=replace(REQUEST, split="test"))
    with AppendLog(file):
        cache.add([other])
        cache.flush()
    assert ScoreCache(tmp_path, IDENTITY).get(other.request) is None
    cache.flush()
    assert ScoreCache(tmp_path, IDENTITY).get(other.request) is not None


def test_many_scores_are_written_without_a_flush(cache: ScoreCache, tmp_path: Path) -> None:
    many = [replace(SCORE, request=replace(REQUEST, start=i, stop=i + 4)) for i in range(64)]
    for score in many:
        cache.add([score])
    assert ScoreCache(tmp_path, IDENTITY).get(many[-1].request) is not None


REWARDS = replace(IDENTITY, metrics=dict.fromkeys(IDENTITY.metrics, "reward"))


def scored(task: str, *texts: str) -> ShardScore:
    outcomes = np.ones(4, np.float32)
    return ShardScore(replace(REQUEST, task=task), Stats(4, 4.0, 4.0), outcomes, 0.2, texts=texts)


def test_damaged_lines_are_skipped_with_a_warning(
    cache: ScoreCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.add([SCORE])
    cache.flush()
    (path,) = (tmp_path / "scores").iterdir()
    line = path.read_bytes()
    path.write_bytes(b"{nonsense\n" + line[:40] + b"\n" + b'{"record":"score","data":"d"}\n' + line)
    assert ScoreCache(tmp_path, IDENTITY).get(REQUEST) is not None
    assert f"{path}: lines that are damaged: 3; they are skipped" in caplog.text


def test_a_cache_that_cannot_be_written_ends_no_run(
    cache: ScoreCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.storage.caches.records.AppendLog", full)
    for i in range(3):
        cache.add([replace(SCORE, request=replace(REQUEST, start=4 * i, stop=4 * i + 4))])
        cache.flush()
    assert cache.get(REQUEST) is not None
    assert caplog.text.count("does not write there any more: [Errno 28] No space left") == 1


def test_a_score_takes_little_memory(cache: ScoreCache) -> None:
    """A run holds the scores of all its shards, a million or more, and those of earlier runs."""
    count, samples = 2000, 512
    tracemalloc.start()
    for i in range(count):
        request = replace(REQUEST, shard=i, start=i * samples, stop=(i + 1) * samples)
        cache.add([replace(SCORE, request=request, outcomes=np.zeros(samples, bool))])
    cache.flush()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / count < 500


def test_a_reward_counts_only_beside_its_completions(tmp_path: Path) -> None:
    """Only one reward's scores carry them: a run without that reward would have none."""
    with_texts, without = scored("cats", *"abcd"), scored("dogs")
    cache = ScoreCache(tmp_path, REWARDS)
    cache.add([without])
    assert cache.get(without.request) is None
    cache.add([with_texts])
    cache.flush()
    for again in (cache, ScoreCache(tmp_path, REWARDS)):
        assert again.get(without.request) is not None and again.get(with_texts.request) is not None
    alone = replace(REWARDS, tasks={"dogs": REWARDS.tasks["dogs"]}, metrics={"dogs": "reward"})
    other = ScoreCache(tmp_path, alone)
    assert other.get(without.request) is None
    other.add([scored("dogs", *"abcd")])
    other.flush()
    for again in (other, ScoreCache(tmp_path, alone)):
        found = again.get(without.request)
        assert found is not None and found.texts == tuple("abcd")


@pytest.mark.parametrize("old, new", [(b"[4,2.0,2.0]", b"[4,3.0,3.0]"), (b'"val"', b'"vam"'), (b"0.2,", b"0.3,")])
def test_an_edited_score_is_not_believed(
    cache: ScoreCache, tmp_path: Path, caplog: pytest.LogCaptureFixture, old: bytes, new: bytes
) -> None:
    other = replace(SCORE, request=replace(REQUEST, start=8, stop=12))
    cache.add([SCORE, other])
    cache.flush()
    (path,) = (tmp_path / "scores").iterdir()
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    again = ScoreCache(tmp_path, IDENTITY)
    assert again.get(REQUEST) is None and again.get(other.request) is not None
    assert f"{path}: lines that are damaged: 1; they are skipped" in caplog.text
    again.add([SCORE])  # scored again
    again.flush()
    found = ScoreCache(tmp_path, IDENTITY).get(REQUEST)
    assert found is not None and found.stats == SCORE.stats


def test_an_edited_completion_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = CompletionCache(tmp_path, "context")
    cache.add(Completions(REQUEST, ("one", "two", "three", "four"), 0.2))
    cache.flush()
    assert CompletionCache(tmp_path, "context").get(REQUEST) is not None
    (path,) = (tmp_path / "completions").iterdir()
    path.write_bytes(path.read_bytes().replace(b"three", b"tree!"))
    assert CompletionCache(tmp_path, "context").get(REQUEST) is None
    assert "lines that are damaged: 1" in caplog.text


def test_scores_of_older_versions_have_no_checksum(cache: ScoreCache, tmp_path: Path) -> None:
    cache.add([SCORE])
    cache.flush()
    (path,) = (tmp_path / "scores").iterdir()
    path.write_bytes(re.sub(rb',"checksum":"[0-9a-f]{8}"', b"", path.read_bytes()))
    found = ScoreCache(tmp_path, IDENTITY).get(REQUEST)
    assert found is not None and found.stats == SCORE.stats
