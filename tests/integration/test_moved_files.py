"""Proves that workers that read a run's files at other paths have the run's identity, even if that has paths in it."""

from pathlib import Path

import pytest
from small_soup import write_soup, write_soup_spec

from pipeline.cluster.files.bundle import PIECE, Stream, content_digest, unpack
from pipeline.cluster.files.spec_files import moved, named_files
from pipeline.spec.load import load_spec
from pipeline.spec.run import RunSpec
from pipeline.workers.completion_worker import CompletionWorker
from pipeline.workers.reward_worker import RewardWorker


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """A spec whose architecture is a path, which is part of a run's identity."""
    return load_spec(write_soup_spec(write_soup(tmp_path / "driver")))


def at_another_place(spec: RunSpec, node: Path) -> RunSpec:
    places = {}
    for i, (place, named) in enumerate(named_files(spec).items()):
        bundle = named.bundle()
        pieces = (Stream(bundle).read(start) for start in range(0, bundle.size, PIECE))
        unpack(bundle, content_digest(bundle), pieces, node / str(i))
        places[place] = named.value(str(node / str(i) / bundle.name))
    return moved(spec, places)


def test_policies_and_rewards_are_those_of_the_run(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    there = at_another_place(spec, tmp_path / "node")
    first = CompletionWorker("w", spec).info()
    scored = {task: mark for task, (mark, _, _) in first.tasks.items()}
    (tmp_path / "driver").rename(tmp_path / "gone")
    assert CompletionWorker("w", spec, fetch=lambda asked: there).info() == first
    for task in spec.tasks:
        RewardWorker("s", spec, task, scored[task], fetch=lambda asked: there)


def test_rewards_of_other_prompts_are_refused(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    there = at_another_place(spec, tmp_path / "node")
    assert there.generation is not None
    (Path(there.generation.prompts.source) / "val.jsonl").write_text('{"source": "another one"}\n' * 4)
    scored = {task: mark for task, (mark, _, _) in CompletionWorker("w", spec).info().tasks.items()}
    with pytest.raises(ValueError, match="differ from the prepared ones"):
        RewardWorker("s", spec, "brief", scored["brief"], fetch=lambda asked: there)
